# SPDX-License-Identifier: Apache-2.0
"""Count what was tried and what held. No ROS.

A case is one try. Its seed follows from the campaign's seed, the part's name and the case's number, so that one case
can be repeated without those before it. What a number stands for may hang on how many cases the campaign has.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

__all__ = ["BrokenPromiseError", "Case", "Promise", "case_seed"]


def case_seed(seed: int, part: str, number: int) -> int:
    """Return the seed of case `number` of `part` in the campaign with `seed`: 63 bits."""
    digest = hashlib.sha256(f"{seed}/{part}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@dataclass(frozen=True, kw_only=True)
class Case:
    """One try of one part."""

    part: str
    number: int
    campaign_seed: int
    minutes: float
    """Minutes of the campaign."""
    full: bool = False
    """Of a full campaign."""

    @property
    def seed(self) -> int:
        """Seed of this case."""
        return case_seed(self.campaign_seed, self.part, self.number)

    def random(self) -> np.random.Generator:
        """Return a new generator of this case."""
        return np.random.default_rng(self.seed)

    def repeat(self) -> str:
        """Return the command that tries this case again."""
        words = (
            f"./chatvla torture {self.minutes:g} --seed {self.campaign_seed} --only {self.part} --case {self.number}"
        )
        return words + (" --full" if self.full else "")


class BrokenPromiseError(AssertionError):
    """A promise did not hold; `promise` says which, the message why."""

    def __init__(self, promise: Promise, why: str, case: Case | None) -> None:
        super().__init__(why)
        self.promise, self.why, self.case = promise, why, case


@dataclass(kw_only=True)
class Promise:
    """One sentence that must hold in every try."""

    part: str
    name: str
    sentence: str
    unit: str
    """What is counted: messages, chunks, kills."""
    planned: int
    held: int = 0
    """Tries in which it held; with no broken promise these are all tries."""
    notes: dict[str, str | int | float] = field(default_factory=dict)
    """Figures that belong to it: a largest value, a count of kinds."""

    def hold(self, count: int = 1) -> None:
        """Count tries in which the promise held."""
        self.held += count

    def require(self, condition: object, why: str, case: Case | None = None) -> None:
        """Raise BrokenPromiseError with the sentence `why` unless `condition` is true."""
        if not condition:
            raise BrokenPromiseError(self, why, case)

    def largest(self, name: str, value: float) -> None:
        """Keep the largest value of a figure."""
        self.notes[name] = max(float(self.notes.get(name, value)), value)

    def line(self, *, broken: bool = False) -> str:
        """Return the promise's line of the report."""
        word = "BROKEN" if broken else "held" if self.held else "not tried"
        count = f"{self.held}" if self.held >= self.planned else f"{self.held} of {self.planned} planned"
        notes = "; ".join(f"{name} {_shown(value)}" for name, value in self.notes.items())
        return f"{word:<9} {self.part}.{self.name}: {count} {self.unit}: {self.sentence}" + (
            f" ({notes})" if notes else ""
        )


def _shown(value: str | int | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
