# SPDX-License-Identifier: Apache-2.0
"""Read image-text data in LLaVA's JSON, by the rules of the paper (ChatVLA-2, supplement).

- A dialogue is cut to five turns: the first is kept, four of the rest are drawn.
- TextVQA samples whose OCR tokens hold a number or a mathematical operator are left out, and so are those whose OCR
  tokens are unknown: the data must not teach what pretraining is tested for.
- Questions are asked in varying words.
- Images become 320x240, stretched, so that points given as shares of the image stay right.
What can't be read is skipped and counted by name, never silently.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from chatvla_training.data.augment import vary_question
from chatvla_training.data.errors import CorruptSampleError, SourceError
from chatvla_training.data.samples import ChatSample, Turn

__all__ = ["IMAGE_SIZE", "KINDS", "MAX_TURNS", "LlavaSource", "choose_turns", "teaches_numbers"]

IMAGE_SIZE = (320, 240)
"""Width and height [px]."""
MAX_TURNS = 5
LOOKED_FOR = 1000
"""So many images are looked for before the first step, until one is found."""
KINDS = ("coco", "textvqa", "gqa", "robopoint", "qa")
OCR_HINT = re.compile(r"Reference OCR tokens?:\s*(.*)", re.IGNORECASE | re.DOTALL)
OPERATOR = re.compile(r"[+×÷*=/<>±√^%]|^[-−–xX]$")


class LlavaSource:
    """Samples of one LLaVA JSON file."""

    def __init__(self, path: Path, *, kind: str, images: Path | None = None) -> None:
        """Read the list of samples; `images` is the folder their paths start from (default: that of the file).

        Raises SourceError when the file is no list of samples or `kind` is none of KINDS.
        """
        if kind not in KINDS:
            raise SourceError(f"image-text kind {kind!r} is not one of: {', '.join(KINDS)}")
        self.name = f"{kind}:{path.stem}"
        self._root = images or path.parent
        self._hash = hashlib.sha256()
        self.left_out: Counter[str] = Counter()
        """Samples that were not taken, by reason."""
        try:
            text = path.read_bytes()
            entries = json.loads(text)
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} is no readable JSON: {error}") from error
        if not isinstance(entries, list):
            raise SourceError(f"{path} holds {type(entries).__name__}, expected a list of samples")
        self._hash.update(text)
        self._samples = [kept for number, entry in enumerate(entries) if (kept := self._take(number, entry, kind))]
        if not self._samples:
            raise SourceError(f"{path} has no usable sample; left out: {dict(self.left_out)}")
        named = [image for _, image, _ in self._samples[:LOOKED_FOR] if image is not None]
        if named and not any((self._root / image).is_file() for image in named):
            raise SourceError(
                f"none of the first {len(named)} images that {path} names is there, such as {self._root / named[0]}; "
                "their paths start from the JSON file's folder: put the pictures beside it"
            )

    def _take(self, number: int, entry: Any, kind: str) -> tuple[str, str | None, tuple[Turn, ...]] | None:
        """Return id, image and all turns of one entry, or None after counting why not."""
        if not isinstance(entry, Mapping):
            self.left_out["not an object"] += 1
            return None
        turns = read_turns(entry.get("conversations"))
        if not turns:
            self.left_out["no question with an answer"] += 1
            return None
        if kind == "textvqa":
            tokens = ocr_tokens(entry)
            reason = "OCR tokens unknown" if tokens is None else None
            if tokens is not None and teaches_numbers(tokens):
                reason = "OCR tokens hold numbers or operators"
            if reason is not None:
                self.left_out[reason] += 1
                return None
        image = entry.get("image")
        if image is not None and not isinstance(image, str):
            self.left_out["image is no path"] += 1
            return None
        return f"{self.name}/{entry.get('id', number)}", image, turns

    def __len__(self) -> int:
        """Return the number of samples taken."""
        return len(self._samples)

    def sample(self, index: int, draw: int) -> ChatSample:
        """Return sample `index`, turns and wording chosen by `draw`. Raises CorruptSampleError for a bad image."""
        name, image, turns = self._samples[index]
        rng = random.Random(draw)
        chosen = tuple(
            Turn(question=vary_question(turn.question, rng), answer=turn.answer) for turn in choose_turns(turns, rng)
        )
        return ChatSample(id=name, images=() if image is None else (self._image(name, image),), turns=chosen)

    def _image(self, name: str, image: str) -> np.ndarray:
        path = self._root / image
        try:
            with Image.open(path) as picture:
                return np.asarray(picture.convert("RGB").resize(IMAGE_SIZE, Image.Resampling.BICUBIC))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
            raise CorruptSampleError(name, f"image {path} can't be read: {error}") from error

    def sha256(self) -> str:
        """Return a fingerprint of the JSON file."""
        return self._hash.hexdigest()


def read_turns(conversation: Any) -> tuple[Turn, ...]:
    """Return the question-answer pairs of a LLaVA conversation; half a pair at the end is dropped."""
    if not isinstance(conversation, Sequence) or isinstance(conversation, str):
        return ()
    turns: list[Turn] = []
    question: str | None = None
    for part in conversation:
        if not isinstance(part, Mapping) or not isinstance(part.get("value"), str):
            return ()
        text = part["value"].replace("<image>", "").strip()
        if part.get("from") in ("human", "user"):
            question = OCR_HINT.sub("", text).strip()
        elif question and text:
            turns.append(Turn(question=question, answer=text))
            question = None
    return tuple(turns)


def ocr_tokens(entry: Mapping[str, Any]) -> list[str] | None:
    """Return the OCR tokens of a TextVQA entry: its own list, or the hint in the question; None when it has neither."""
    listed = entry.get("ocr_tokens")
    if isinstance(listed, list):
        return [str(token) for token in listed]
    for part in entry.get("conversations", ()):
        if isinstance(part, Mapping) and (found := OCR_HINT.search(str(part.get("value", "")))):
            words = found.group(1).split("\n")[0]
            return [token.strip() for token in re.split(r"[,\s]+", words) if token.strip()]
    return None


def teaches_numbers(tokens: Iterable[str]) -> bool:
    """Return whether an OCR token holds a digit or a mathematical operator; a hyphen within a word is none."""
    return any(any(character.isdigit() for character in token) or OPERATOR.search(token) for token in tokens)


def choose_turns(turns: Sequence[Turn], rng: random.Random) -> tuple[Turn, ...]:
    """Return at most MAX_TURNS turns in their order: the first, and a draw of the rest."""
    if len(turns) <= MAX_TURNS:
        return tuple(turns)
    rest = sorted(rng.sample(range(1, len(turns)), MAX_TURNS - 1))
    return (turns[0], *(turns[index] for index in rest))
