# SPDX-License-Identifier: Apache-2.0
"""Read questions about images from LLaVA-style JSON and from VLMEvalKit's TSV.

JSON: a list of {"image": path or list of paths (may be missing), "conversations": [{"from": "human", "value": ...},
{"from": "gpt", "value": ...}, ...]}; each pair of turns is one question. Paths are relative to the file.
TSV: columns index, question, answer; image (base64, or the index of the row that has it) or image_path; A, B, C, ...
for multiple choice. Both may name a question's category. A list of answers may be written as Python or JSON.
"""

from __future__ import annotations

import ast
import base64
import csv
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Question", "QuestionsError", "read_questions"]

_NEEDED = ("index", "question", "answer")
_LETTERS = "ABCDEFGHIJ"
_ASKING, _ANSWERING = ("human", "user"), ("gpt", "assistant", "model")
_LONGEST_INDEX = 64
"""A shorter text in the column `image` is the index of another row, as in VLMEvalKit."""


class QuestionsError(ValueError):
    """The file cannot be read as questions; the message names file, entry and what is missing."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with its reference answers."""

    name: str
    text: str
    answers: tuple[str, ...]
    images: tuple[str | bytes, ...]
    """Paths, or encoded pictures."""
    options: tuple[str, ...] = ()
    """Letters of a multiple-choice question."""
    category: str = ""
    """What the benchmark calls this kind of question; empty where it says nothing."""

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """Return the images as RGB arrays (H, W, 3), decoded now. Raises QuestionsError."""
        from PIL import Image, UnidentifiedImageError

        found = {}
        for index, image in enumerate(self.images):
            try:
                with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as picture:
                    found[f"image{index}"] = np.asarray(picture.convert("RGB"))
            except (OSError, UnidentifiedImageError) as error:
                raise QuestionsError(f"question {self.name}: image cannot be read: {error}") from error
        return found


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a .json or .tsv file. Raises QuestionsError and OSError."""
    if path.suffix == ".json":
        found = _from_json(path)
    elif path.suffix == ".tsv":
        found = _from_tsv(path)
    else:
        raise QuestionsError(f"{path} is neither .json (LLaVA) nor .tsv (VLMEvalKit)")
    if not found:
        raise QuestionsError(f"{path} holds no question")
    return found


def _from_json(path: Path) -> list[Question]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise QuestionsError(f"{path} is no JSON: {error}") from error
    if not isinstance(entries, list):
        raise QuestionsError(f"{path} holds no list of conversations")
    found = []
    for number, entry in enumerate(entries):
        turns = entry.get("conversations") if isinstance(entry, dict) else None
        if not isinstance(turns, list):
            raise QuestionsError(f"{path}: entry {number} has no conversations")
        images = entry.get("image") or ()
        images = (images,) if isinstance(images, str) else tuple(images)
        for turn, (asked, answered) in enumerate(_turns(turns, f"{path}: entry {number}")):
            found.append(
                Question(
                    name=f"{entry.get('id', number)}.{turn}",
                    text=asked.replace("<image>", "").strip(),
                    answers=(answered.strip(),),
                    images=tuple(str(path.parent / image) for image in images),
                    category=str(entry.get("category", "")),
                )
            )
    return found


def _turns(turns: list[Any], where: str) -> list[tuple[str, str]]:
    """Return what was asked and answered, in order; what a system says before is left out. Raises QuestionsError."""
    said: list[tuple[bool, str]] = []
    for turn in turns:
        who = turn.get("from") if isinstance(turn, dict) else None
        if not isinstance(who, str) or not isinstance(turn.get("value"), str):
            raise QuestionsError(f"{where} has a turn without the texts 'from' and 'value'")
        if who in _ASKING or who in _ANSWERING:
            said.append((who in _ASKING, turn["value"]))
        elif who != "system":
            known = ", ".join((*_ASKING, *_ANSWERING, "system"))
            raise QuestionsError(f"{where} has a turn from {who!r}; known: {known}")
    if any(asks != (place % 2 == 0) for place, (asks, _) in enumerate(said)):
        raise QuestionsError(f"{where}: questions and answers do not take turns, beginning with a question")
    return [(asked, answered) for (_, asked), (_, answered) in zip(said[::2], said[1::2], strict=False)]


def _from_tsv(path: Path) -> list[Question]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for needed in _NEEDED:
        if rows and needed not in rows[0]:
            raise QuestionsError(f"{path} has no column {needed}; it has: {', '.join(rows[0])}")
    for number, row in enumerate(rows):
        if any(row[needed] is None for needed in _NEEDED):
            raise QuestionsError(
                f"{path}: row {number} has {sum(value is not None for value in row.values())} of {len(row)} columns; "
                "the file may be cut short"
            )
    by_index = {row["index"]: row for row in rows}
    return [_row(path, row, by_index) for row in rows]


def _row(path: Path, row: Mapping[str, str], by_index: Mapping[str, Mapping[str, str]]) -> Question:
    letters = tuple(letter for letter in _LETTERS if row.get(letter))
    text = row["question"]
    if row.get("hint"):
        text = f"Hint: {row['hint']}\nQuestion: {text}"
    if letters:
        options = "\n".join(f"{letter}. {row[letter]}" for letter in letters)
        text = f"{text}\nOptions:\n{options}\nPlease select the correct answer from the options above."
    return Question(
        name=row["index"],
        text=text,
        answers=_answers(row["answer"]),
        images=_images(path, row, by_index),
        options=letters,
        category=row.get("category") or "",
    )


def _images(path: Path, row: Mapping[str, str], by_index: Mapping[str, Any]) -> tuple[str | bytes, ...]:
    content = row.get("image") or ""
    if content and len(content) <= _LONGEST_INDEX:
        if content not in by_index:
            raise QuestionsError(f"{path}: row {row['index']} takes its image from row {content!r}, which is not there")
        content = by_index[content].get("image", "")
    if content:
        parts = _listed(content)
        try:
            return tuple(base64.b64decode(part) for part in (parts or (content,)))
        except ValueError as error:
            raise QuestionsError(f"{path}: the image of row {row['index']} is no base64: {error}") from error
    names = row.get("image_path") or ""
    return tuple(str(path.parent / name) for name in (_listed(names) or ((names,) if names else ())))


def _answers(text: str) -> tuple[str, ...]:
    return _listed(text) or (text,)


def _listed(text: str) -> tuple[str, ...]:
    """Return the texts of a list written as Python or JSON; empty when `text` is none."""
    if not text.startswith("["):
        return ()
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return ()
    return tuple(str(value) for value in values) if isinstance(values, list) else ()
