# SPDX-License-Identifier: Apache-2.0
"""Demonstrations of the toy task in the real bench, and the grammar of its thoughts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from chatvla_control.robot_spec import robot_spec
from chatvla_eval.tasks import task_by_name
from chatvla_policy.processing.boxes import parse_boxes
from chatvla_policy.processing.images import ImageConfig, Placement
from chatvla_sim.toy_placement.bench import ToyPlacementBench
from chatvla_sim.toy_placement.objects import object_part
from chatvla_sim.toy_placement.reasoning import reasoning_text, side_text, written_boxes
from chatvla_training.data.episodes import EpisodeDataset
from chatvla_training.demos.cli import main as record
from chatvla_training.demos.collect import collect
from chatvla_training.demos.disturbance import DisturbanceSettings
from chatvla_training.demos.episode import DemoSettings
from chatvla_training.demos.thoughts import episode_facts, not_for_robot_data, reworded, thought
from chatvla_training.text import toy_phrases

SETTINGS = DemoSettings(task="toy_placement", frame_hz=1.0, disturbance=DisturbanceSettings(share=1.0))
WHOLE = Placement(scale=1.0, offset_x=0.0, offset_y=0.0, source_width=320, source_height=240)


def test_an_episode_points_at_its_objects_in_every_frame(tmp_path: Path) -> None:
    collect(tmp_path / "set", episodes=1, seed=3, jobs=1, settings=SETTINGS)
    data = EpisodeDataset(tmp_path / "set", horizon=16)
    assert data.views == ("right",)
    assert data.joint_names == robot_spec("franka").joint_names
    facts = data.facts(0)
    assert {object_part(facts[key]) for key in ("target", "reference")} == {"robot"}
    texts = [data.sample(index, 0).reasoning for index in range(3)]
    for text in texts:
        assert [box.label for box in parse_boxes(text, "right", WHOLE, ImageConfig())] == [
            facts["target"],
            facts["reference"],
            "goal",
        ]
    again = reworded(facts, texts[0], 7)
    assert again == reworded(facts, texts[0], 7)
    assert parse_boxes(again, "right", WHOLE, ImageConfig()) == parse_boxes(texts[0], "right", WHOLE, ImageConfig())
    assert reworded(facts, data.texts()[-1], 7, brief=1.0).count("<|box_start|>") == 0


def test_a_text_that_is_gone_on_with_says_what_was_true_before(tmp_path: Path) -> None:
    collect(tmp_path / "set", episodes=1, seed=3, jobs=1, settings=SETTINGS)
    said = [stated(text) for text in EpisodeDataset(tmp_path / "set", horizon=16).texts()]
    assert said[-1] != said[0]
    for age_s, backs in ((0.0, {0}), (0.9, {1}), (3.9, {1, 2, 3, 4}), (1e6, {len(said) - 1})):
        data = EpisodeDataset(tmp_path / "set", horizon=16, wording=reworded, text_age_s=age_s)
        last = len(data) - 1
        drawn = [stated(data.text(last, draw)) for draw in range(60)]
        assert {str(text) for text in drawn} == {str(said[last - back]) for back in backs}
        assert data.sample(last, 5).reasoning == data.text(last, 5)
        assert stated(data.text(0, 3)) == said[0], "nothing was said before the first frame"


def stated(text: str) -> list[tuple[float, float, float, float]]:
    boxes = parse_boxes(text, "right", WHOLE, ImageConfig())
    return [(box.x_min, box.y_min, box.x_max, box.y_max) for box in boxes]


def test_the_sorting_task_is_recorded_by_all_three_cameras(tmp_path: Path) -> None:
    out = tmp_path / "set"
    words = ["toy_sorting", "--episodes", "1", "--jobs", "1", "--frame-hz", "0.3", "--noise", "0", "--out", str(out)]
    assert record([*words, "--views", "right,left,top"]) == 1
    assert record([*words, "--views", "left,right,wrist"]) == 0
    data = EpisodeDataset(out, horizon=16)
    assert set(data.views) == {"left", "right", "wrist"}
    toys = data.facts(0)["toys"]
    assert {object_part(toy) for toy in toys} == {"robot"}
    texts = [data.sample(index, index).reasoning for index in range(len(data))]
    following = [text.rpartition("The next toy is the ")[2].partition(",")[0] for text in texts]
    assert list(dict.fromkeys(following)) == toys
    images = data.sample(0, 0).images
    assert {image.shape for image in images.values()} == {(240, 320, 3)}
    assert not np.array_equal(images["left"], images["right"])


def test_every_wording_is_understood_by_the_scores_and_points_where_the_bench_does() -> None:
    bench, task = ToyPlacementBench(), task_by_name("toy_placement")
    for seed in range(6):
        truth = bench.reset(split="in_domain", seed=seed)
        facts = episode_facts(truth)
        target = next(item for item in truth.objects if item.name == truth.target)
        own = reasoning_text(truth, target, truth.answer)
        assert toy_phrases.reasoning(toy_phrases.facts_of(truth)) == own
        for said, true in zip(stated(own), written_boxes(truth), strict=True):
            assert said == pytest.approx((true.x_min, true.y_min, true.x_max, true.y_max), abs=1.7)
        toy, _, goal = (tuple(f"{round(share * 1000):03d}" for share in corner(box)) for box in stated(own))
        assert own.endswith(f", from {' '.join(toy)} to {' '.join(goal)}.")
        rng = random.Random(seed)
        wordings = {thought(facts, rng, lambda truth=truth: truth) for _ in range(30)}
        assert len(wordings) > 10
        for text in wordings:
            assert task.score(text, truth).measures == {"recognition": 2, "affordance": 1}, text
    bench.close()


def corner(box: tuple[float, float, float, float]) -> tuple[float, float]:
    return box[2] / 320, box[3] / 240


def test_each_side_of_a_rectangle_has_numbers_of_its_own() -> None:
    words = toy_phrases.side_words()
    assert len(set(words)) == len(words) == 400
    for side, digit in enumerate("2468"):
        for share in (0.0, 0.123, 0.5, 0.999, 1.0):
            said = side_text(share, side)
            assert said in words[100 * side : 100 * side + 100]
            assert said[-1] == digit
            assert int(said) / 1000 == pytest.approx(share, abs=0.0051 if 0.01 < share < 0.99 else 0.0081)


def test_scenes_of_other_parts_are_no_robot_data() -> None:
    bench = ToyPlacementBench()
    assert not_for_robot_data(bench.reset(split="in_domain", seed=1)) == ""
    assert "not for robot data" in not_for_robot_data(bench.reset(split="open_world", seed=1))
    bench.close()


def test_vocabulary_is_small_and_holds_nothing_held_out() -> None:
    words = set(toy_phrases.words())
    assert len(words) < 90
    assert not words & {"train", "mushroom", "pot", "case", "please", "want", "Could", "Look"}
