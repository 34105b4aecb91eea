# SPDX-License-Identifier: Apache-2.0
"""Image-text data: the paper's rules, an exact mixture, and nothing lost without a word."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chatvla_training.data.augment import vary_question
from chatvla_training.data.errors import CorruptSampleError, SourceError
from chatvla_training.data.llava import LlavaSource, choose_turns, teaches_numbers
from chatvla_training.data.mixture import Group, Mixture
from chatvla_training.data.samples import ChatSample, Turn
from chatvla_training.data.stream import BatchStream


def entry(number: int, turns: int = 1, **more):
    parts = []
    for turn in range(turns):
        parts += [{"from": "human", "value": f"<image>\nquestion {turn}?"}, {"from": "gpt", "value": f"answer {turn}"}]
    return {"id": number, "image": f"{number}.png", "conversations": parts, **more}


def source(folder: Path, entries: list, kind: str = "qa") -> LlavaSource:
    for number in range(4):
        Image.fromarray(np.full((30, 50, 3), number, np.uint8)).save(folder / f"{number}.png")
    path = folder / "data.json"
    path.write_text(json.dumps(entries))
    return LlavaSource(path, kind=kind)


def test_first_turn_is_kept_and_four_are_drawn():
    turns = [Turn(question=f"q{number}", answer="a") for number in range(12)]
    seen = Counter()
    for seed in range(200):
        chosen = choose_turns(turns, random.Random(seed))
        assert len(chosen) == 5
        assert chosen[0].question == "q0"
        numbers = [int(turn.question[1:]) for turn in chosen]
        assert numbers == sorted(set(numbers))
        seen.update(numbers[1:])
    assert set(seen) == set(range(1, 12))
    assert choose_turns(turns[:5], random.Random(0)) == tuple(turns[:5])


@pytest.mark.parametrize("token", ["12", "3rd", "+", "-", "x", "=", "a+b", "50%", "4x4", "×", "<"])
def test_number_or_operator_is_found(token: str):
    assert teaches_numbers(["stop", token])


@pytest.mark.parametrize("token", ["stop", "coca-cola", "Exit", "max", "ox"])
def test_plain_words_teach_no_numbers(token: str):
    assert not teaches_numbers([token])


def test_textvqa_is_filtered_and_counted(tmp_path: Path):
    hinted = entry(2)
    hinted["conversations"][0]["value"] += "\nReference OCR token: EXIT, 24"
    entries = [entry(0, ocr_tokens=["EXIT"]), entry(1, ocr_tokens=["7"]), hinted, entry(3)]
    read = source(tmp_path, entries, kind="textvqa")
    assert len(read) == 1
    assert read.left_out == {"OCR tokens hold numbers or operators": 2, "OCR tokens unknown": 1}


def test_sample_has_its_turns_and_no_image_mark(tmp_path: Path):
    sample = source(tmp_path, [entry(1, turns=7)]).sample(0, draw=3)
    assert len(sample.turns) == 5
    assert "<image>" not in sample.turns[0].question
    assert sample.turns[0].question.endswith("question 0?")
    assert sample.turns[0].answer == "answer 0"
    assert sample.images[0].shape == (240, 320, 3)
    again = source(tmp_path, [entry(1, turns=7)]).sample(0, draw=3)
    assert again.turns == sample.turns


def test_bad_entries_are_counted_by_name(tmp_path: Path):
    entries = [entry(0), "text", {"image": "0.png"}, entry(1) | {"image": 5}]
    read = source(tmp_path, entries)
    assert len(read) == 1
    assert read.left_out == {"not an object": 1, "no question with an answer": 1, "image is no path": 1}
    mixture = Mixture([Group(name="image_text", share=1, sources=(read,))], seed=0)
    assert mixture.left_out() == {"qa:data": dict(read.left_out)}


def test_unknown_kind_lists_the_known(tmp_path: Path):
    with pytest.raises(SourceError, match="coco, textvqa, gqa, robopoint, qa"):
        source(tmp_path, [entry(0)], kind="vqa2")


def test_pictures_that_lie_elsewhere_are_named_before_the_first_step(tmp_path: Path):
    entries = [entry(number) | {"image": f"train2017/{number}.jpg"} for number in range(2)]
    with pytest.raises(SourceError, match=r"none of the first 2 images .*train2017/0\.jpg; their paths start from"):
        source(tmp_path, entries)
    assert len(source(tmp_path, [*entries, entry(3)])) == 3  # One that is there: the others are skipped one by one.


def test_corrupt_image_is_replaced_and_named(tmp_path: Path):
    read = source(tmp_path, [entry(number) for number in range(4)])
    (tmp_path / "2.png").write_bytes(b"not an image")
    with pytest.raises(CorruptSampleError, match=r"2\.png"):
        read.sample(2, draw=0)
    mixture = Mixture([Group(name="image_text", share=1, sources=(read,))], seed=0)
    stream = BatchStream(mixture, lambda samples: [sample.id for sample in samples], batch=4)
    batch = stream[0]
    assert len(batch.ids) == 4
    assert [name for name, _ in batch.skipped] == ["qa:data/2"]


def test_queries_vary_but_keep_their_meaning():
    forms = {
        vary_question("What is it?\nAnswer the question using a single word or phrase.", random.Random(k))
        for k in range(50)
    }
    assert len(forms) > 10
    assert all("What is it?" in form for form in forms)
    captions = {vary_question("Describe the image concisely.", random.Random(k)) for k in range(50)}
    assert len(captions) == 5


class Numbers:
    """A source of numbered samples."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self._size = name, size

    def __len__(self) -> int:
        return self._size

    def sample(self, index: int, draw: int) -> ChatSample:
        return ChatSample(id=f"{self.name}/{index}", images=(), turns=(Turn(question=str(draw), answer="a"),))

    def sha256(self) -> str:
        return self.name


def mixed(seed: int = 0, ratio=(1, 3)) -> Mixture:
    chat = Group(name="image_text", share=ratio[0], sources=(Numbers("a", 7), Numbers("b", 4)))
    return Mixture([chat, Group(name="robot", share=ratio[1], sources=(Numbers("r", 10),))], seed=seed)


def test_every_block_holds_the_exact_ratio():
    mixture = mixed()
    for block in range(100):
        ids = [mixture.sample(block * 4 + place)[0].id for place in range(4)]
        assert sum(name.startswith("r/") for name in ids) == 3


def test_every_sample_comes_once_before_any_comes_again():
    mixture = mixed()
    chat = [name for place in range(11 * 4) if not (name := mixture.sample(place)[0].id).startswith("r/")]
    assert len(chat) == 11
    assert len(set(chat)) == 11
    robot = [name for place in range(40) if (name := mixture.sample(place)[0].id).startswith("r/")]
    assert Counter(robot) == {f"r/{index}": 3 for index in range(10)}
    assert robot[:10] != robot[10:20]


def test_stream_depends_on_seed_and_place_alone():
    first = [mixed().sample(place)[0] for place in range(50)]
    assert first == [mixed().sample(place)[0] for place in range(50)]
    assert first[30:] == [mixed().sample(place)[0] for place in range(30, 50)]
    assert first != [mixed(seed=1).sample(place)[0] for place in range(50)]


def test_devices_and_workers_share_one_stream():
    def ids(world: int, workers: int) -> list[str]:
        streams = [
            BatchStream(mixed(), _ids, batch=8 // world, rank=rank, world=world).iterate(0, 5, workers=workers)
            for rank in range(world)
        ]
        return [name for parts in zip(*streams, strict=True) for part in parts for name in part.ids]

    assert ids(1, 0) == ids(2, 0) == ids(1, 2)


def _ids(samples):
    return [sample.id for sample in samples]


def test_empty_mixture_is_refused():
    with pytest.raises(SourceError, match="no source"):
        mixed(ratio=(0, 0))
