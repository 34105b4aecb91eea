# SPDX-License-Identifier: Apache-2.0
"""Hold the result of one trial: one line of results.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["TrialResult"]


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One line of results.json."""

    index: int
    seed: int
    instruction: str
    scene: dict[str, Any]
    """What the task says of the scene: equation, cards, ..."""
    text: str
    """The scored reasoning: the first of the trial, written on the untouched scene."""
    answer: str
    texts: int
    """Number of distinct reasoning texts in the trial."""
    picked: str
    """Label of the object that was placed, or last held; in a task of steps, first held. Empty when none was."""
    measures: dict[str, int]
    parts: dict[str, int]
    success: bool
    cause: str
    seconds: float
    subsets: tuple[str, ...]
    link: str = ""
    """The broken link of the chain from seeing to doing (causes.LINKS); empty for a success."""
    chosen: str = ""
    """Label of the object that the text chooses; empty when it chooses none that is there."""
    approached: str = ""
    """Label of the object that a gripper came nearest to; empty when something was taken, or it came near none."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What the policy counted of itself, by its own names; empty where it counts nothing."""

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as results.json holds it."""
        return {
            "index": self.index,
            "seed": self.seed,
            "instruction": self.instruction,
            **self.scene,
            "text": self.text,
            "answer": self.answer,
            "texts": self.texts,
            "picked": self.picked,
            **self.measures,
            "parts": self.parts,
            "success": self.success,
            "cause": self.cause,
            "link": self.link,
            "chosen": self.chosen,
            "approached": self.approached,
            "seconds": self.seconds,
            "subsets": list(self.subsets),
            "counts": dict(self.counts),
        }
