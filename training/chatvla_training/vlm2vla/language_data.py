# SPDX-License-Identifier: Apache-2.0
"""Read relabelled data as questions and answers in a checkpoint's own prompts; make padded batches of them.

B rows; T tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_policy.vlm2vla.config import Vlm2VlaConfig
from chatvla_policy.vlm2vla.image_text_model import ChatInputs, extended
from chatvla_policy.vlm2vla.prompts import PROMPTS, arms_sentence
from chatvla_policy.vlm2vla.questions import pose_text
from chatvla_policy.vlm2vla.text_forms import subtasks_text
from chatvla_training.data.errors import CorruptSampleError, SourceError
from chatvla_training.demos.thoughts import reworded

__all__ = [
    "KINDS",
    "LanguageBatch",
    "LanguageCollate",
    "LanguageGroups",
    "LanguageSample",
    "LanguageSource",
    "question_answer",
]

KINDS = ("subtasks", "plan", "actions", "direction", "completion", "way", "reach", "end")
"""Kinds of questions; "way" asks, without a picture, how far it is from place to place; "reach" is "plan" once more
where the arm goes to what it is to take, whose place only the picture shows; "end" asks the variant without reasoning
for actions where the task is done."""
WORTH = 0.85
"""Share of a batch's padded tokens below which it is cut in two."""
_DONE = {True: "The step was completed.", False: "The step was not completed."}


@dataclass(frozen=True, kw_only=True)
class LanguageSample:
    """A question about images and its answer."""

    id: str
    images: tuple[NDArray[np.uint8], ...]
    question: str
    answer: str
    mapped: bool
    """The answer is an action list: its digits are mapped in the action-token variant."""


def question_answer(entry: dict[str, Any], config: Vlm2VlaConfig, spec: RobotSpec, draw: int) -> tuple[str, str] | None:
    """Return question and answer of a line of language.jsonl in the config's prompts; None where it asks no such."""
    prompts, kind = PROMPTS[config.prompts], entry["kind"]
    pose = (
        pose_text(np.array(entry["pose"][:3]), bool(entry["pose"][3]), decimals=config.decimals)
        if config.tell_pose and "pose" in entry
        else ""
    )
    words = {key: str(entry.get(key, "")) for key in ("task", "subtask", "plan", "next", "axis", "start", "end")}
    words |= {"pose": pose, "arms": arms_sentence(spec)}
    if config.variant == "no_reasoning":
        if kind not in ("actions", "end"):
            return None
        name = f"{entry['arm']} arm: " if len(spec.arms) > 1 else ""
        return prompts.fill("direct", **words), f"{name}{entry.get('actions', '[]')}"
    if kind == "end":
        return None
    if kind == "subtasks":
        thought = reworded(entry["facts"], entry["thought"], draw).replace("[", "(")
        return prompts.fill("subtasks", **words), subtasks_text(entry["subtasks"], thought)
    if kind == "completion":
        verdict = {"success": entry["success"], "confidence": "High", "reasoning": _DONE[entry["success"]]}
        return prompts.fill("verify", **words), json.dumps(verdict)
    if kind == "reach":
        kind = "plan"
    return prompts.fill(kind, **words), str(entry[kind])


class LanguageSource:
    """The questions of one relabelled data set."""

    def __init__(self, folder: Path, config: Vlm2VlaConfig, *, split: str = "train") -> None:
        """Read `folder`, as far as the config asks such questions. Raises SourceError when it is no relabelled data."""
        self.name, self._folder, self._config = f"{folder.name}:{split}", folder, config
        path = folder / "language.jsonl"
        try:
            text = path.read_text(encoding="utf-8")
            self.info: dict[str, Any] = json.loads((folder / "info.json").read_text(encoding="utf-8"))
            entries = [json.loads(line) for line in text.splitlines()]
        except (OSError, ValueError) as error:
            raise SourceError(f"{folder} is no relabelled data set: {error}; {_how_to_make(folder, config)}") from error
        self._config = config = replace(config, decimals=self.info.get("decimals", config.decimals))
        self._sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._spec = robot_spec(self.info["robot"])
        self._entries = [
            item
            for item in entries
            if item["split"] == split and question_answer(item, config, self._spec, 0) is not None
        ]

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self._entries)

    def only(self, kind: str) -> LanguageSource:
        """Return the questions of one kind alone; there may be none."""
        found = copy(self)
        found.name = f"{self.name}:{kind}"
        found._entries = [item for item in self._entries if item["kind"] == kind]
        return found

    def longest(self, count: int) -> list[LanguageSample]:
        """Return the `count` samples with the longest answers, in characters; without their images."""
        rows = []
        for index, entry in enumerate(self._entries):
            found = question_answer(entry, self._config, self._spec, 0)
            assert found is not None
            rows.append((len(found[1]), index, *found))
        return [
            LanguageSample(id=f"{self.name}/{index}", images=(), question=question, answer=answer, mapped=False)
            for _, index, question, answer in sorted(rows, reverse=True)[:count]
        ]

    def sample(self, index: int, draw: int) -> LanguageSample:
        """Return question `index`; `draw` words the thought anew. Raises CorruptSampleError for a bad image."""
        entry = self._entries[index]
        found = question_answer(entry, self._config, self._spec, draw)
        assert found is not None
        name = f"{self.name}/{entry['episode']}/{entry['kind']}/{index}"
        return LanguageSample(
            id=name,
            images=tuple(self._image(name, view[key]) for view in entry["images"] for key in self.info["views"]),
            question=found[0],
            answer=found[1],
            mapped=entry["kind"] in ("actions", "end"),
        )

    def _image(self, name: str, file: str) -> NDArray[np.uint8]:
        try:
            with Image.open(self._folder / "images" / file) as picture:
                return np.asarray(picture.convert("RGB"))
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise CorruptSampleError(name, f"image {file} can't be read: {error}") from error

    def sha256(self) -> str:
        """Return a fingerprint of the questions."""
        return self._sha256


def _how_to_make(folder: Path, config: Vlm2VlaConfig) -> str:
    """Return the commands that make what is missing, one after the other."""
    # A small model, which is asked in short prompts, writes each part as one action.
    merging = " --step 1 --limit 1 --decimals 2 --where" if config.prompts == "short" else ""
    source = folder.with_name(folder.name.removesuffix("_language"))
    made = source if source != folder else Path("DATA")
    demos = "" if made.is_dir() else f"./chatvla demos {made.name} --episodes 600 --noise 0 --out {made}, then "
    return f"make it with {demos}./chatvla relabel {made}{merging} --out {folder}"


@dataclass(frozen=True, kw_only=True)
class LanguageBatch:
    """Padded rows as the model takes them."""

    inputs: dict[str, Tensor]
    written_BT: Tensor
    """True at the tokens of answers, ends included."""


@dataclass(frozen=True, kw_only=True)
class LanguageGroups:
    """The rows of one batch by their lengths: a list of subtasks is ten times as long as a direction."""

    parts: tuple[LanguageBatch, ...]


class LanguageCollate:
    """Samples to batches, by the processor and codec that inference uses."""

    LONGEST = 4096
    """Tokens of a row; a longer one means prompts or action lists out of hand."""

    def __init__(self, chat: ChatInputs) -> None:
        self._chat = chat

    def answer_tokens(self, answer: str) -> int:
        """Return how many tokens an answer has, its end among them."""
        return len(self._chat.codec.ids(answer)) + 1

    def __call__(self, samples: Sequence[LanguageSample]) -> LanguageBatch:
        """Return the batch of `samples`. Raises SourceError for a sample that is too long."""
        return _padded([self._row(sample) for sample in samples])

    def grouped(self, samples: Sequence[LanguageSample]) -> LanguageGroups:
        """Return the batch of `samples` in one part, or in two where that saves padding. Raises as above."""
        rows = sorted((self._row(sample) for sample in samples), key=lambda row: row[0]["input_ids"].shape[1])
        lengths = [row["input_ids"].shape[1] for row, _ in rows]
        whole, count = lengths[-1] * len(rows), len(rows)
        sizes = {cut: cut * lengths[cut - 1] + (count - cut) * lengths[-1] for cut in range(1, count)}
        cut = min(sizes, key=lambda place: sizes[place], default=0)
        if not cut or sizes[cut] > WORTH * whole:
            return LanguageGroups(parts=(_padded(rows),))
        return LanguageGroups(parts=(_padded(rows[:cut]), _padded(rows[cut:])))

    def _row(self, sample: LanguageSample) -> tuple[dict[str, Tensor], int]:
        """Return a sample's inputs and where its answer begins."""
        prompt = self._chat(sample.question, sample.images)
        answer = [*self._chat.codec.ids(sample.answer, mapped=sample.mapped), self._chat.codec.end_ids[0]]
        row = extended(prompt, answer)
        length = row["input_ids"].shape[1]
        if length > self.LONGEST:
            raise SourceError(f"{sample.id} has {length} tokens, at most {self.LONGEST} are trained on")
        return row, prompt["input_ids"].shape[1]


def _padded(rows: Sequence[tuple[dict[str, Tensor], int]]) -> LanguageBatch:
    lengths = [row["input_ids"].shape[1] for row, _ in rows]
    width = max(lengths)
    inputs = {}
    for key in {key for row, _ in rows for key in row}:
        parts = [row[key] for row, _ in rows if key in row]
        if key in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"):
            parts = [torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts]
        inputs[key] = torch.cat(parts)
    written_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, (_, start) in enumerate(rows):
        written_BT[number, start : lengths[number]] = True
    return LanguageBatch(inputs=inputs, written_BT=written_BT)
