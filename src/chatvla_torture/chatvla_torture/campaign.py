# SPDX-License-Identifier: Apache-2.0
"""Run parts one after the other, stop at the first broken promise, and say what was tried. No ROS.

`minutes` scale how many cases a part tries. A part has its share of the minutes and what the parts before it left
over; what it did not reach then shows as "N of M planned". A full campaign tries the counts that docs/safety.md names,
however long that takes.
"""

from __future__ import annotations

import importlib
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatvla_torture.parts import Part
from chatvla_torture.promise import BrokenPromiseError, Case, Promise
from chatvla_torture.stop_signals import StopSignals

__all__ = ["TWENTY", "Campaign", "NoCaseError", "Outcome", "PartRun"]

_SHARED_OUT = 0.92
"""Of the minutes: a part ends its last case a little late."""
TWENTY = 20.0
"""Minutes for which the parts name their counts."""
_LEAST_S, _LEAST_OF_SHORT_S, _SHORT = 60.0, 300.0, 5.0
"""A part may take this long even when its share is smaller: nodes take time to start. A campaign of fewer than _SHORT
minutes tries so little that its counts bound it."""
_SAY_EVERY_S = 5.0


class NoCaseError(ValueError):
    """The one case that is asked for is not planned; the message says which are."""


@dataclass(kw_only=True)
class PartRun:
    """What one part needs to run: its seed, its scratch folder, its share of the time."""

    part: Part
    seed: int
    minutes: float
    """Minutes of the whole campaign."""
    scratch: Path
    """An empty folder that is deleted afterwards."""
    jobs: int = 1
    """Processes that a part may use at once."""
    only_case: int | None = None
    full: bool = False
    """Try everything that docs/safety.md names, without limit of time."""
    journal: Path | None = None
    """Where a part that can go on later keeps what it has done."""
    until_s: float = math.inf
    """When the part must end, by the monotonic clock."""
    promises: list[Promise] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)
    _said_s: float = 0.0

    def promise(self, name: str, sentence: str, *, planned: int, unit: str = "cases") -> Promise:
        """Add a promise to the report and return it."""
        self.promises.append(Promise(part=self.part.name, name=name, sentence=sentence, unit=unit, planned=planned))
        return self.promises[-1]

    def scaled(self, at_twenty: int, *, full: int, least: int = 1) -> int:
        """Return how many tries this campaign makes: `at_twenty` in one of 20 minutes, `full` in a full one."""
        return full if self.full else max(least, math.ceil(at_twenty * self.minutes / TWENTY))

    def in_time(self) -> bool:
        """Return whether the part may go on."""
        least_s = _LEAST_OF_SHORT_S if self.minutes < _SHORT else _LEAST_S
        return self.full or time.monotonic() < max(self.until_s, self.started_s + least_s)

    def case(self, number: int) -> Case:
        """Return case `number`."""
        return Case(part=self.part.name, number=number, campaign_seed=self.seed, minutes=self.minutes, full=self.full)

    def cases(self, count: int) -> Iterator[Case]:
        """Yield the cases to try, until the time is over; the one case alone where one is asked for.

        Raises NoCaseError for a case beyond the last.
        """
        if self.only_case is not None:
            if self.only_case >= count:
                raise NoCaseError(f"{self.part.name} has the cases 0 to {count - 1} here, not {self.only_case}")
            yield self.case(self.only_case)
            return
        for number in range(count):
            if not self.in_time():
                return
            self.say(f"case {number + 1} of {count}")
            yield self.case(number)

    def say(self, text: str) -> None:
        """Show progress on stderr: in place on a terminal, now and then elsewhere."""
        now_s, live = time.monotonic(), sys.stderr.isatty()
        if now_s - self._said_s < (0.2 if live else _SAY_EVERY_S):
            return
        self._said_s = now_s
        seconds = now_s - self.started_s
        print(
            f"\r\033[K{self.part.name}: {text} ({seconds:.0f} s)"
            if live
            else f"{self.part.name}: {text} ({seconds:.0f} s)",
            end="" if live else "\n",
            file=sys.stderr,
            flush=True,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a campaign came to."""

    seed: int
    minutes: float
    promises: Sequence[Promise]
    broken: BrokenPromiseError | None
    seconds: dict[str, float]
    """Wall-clock time of each part."""
    interrupted: bool = False
    """Ctrl-C ended it: the counts are those up to then."""

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as --json writes it."""
        broken = self.broken
        return {
            "seed": self.seed,
            "minutes": self.minutes,
            "held": broken is None,
            "interrupted": self.interrupted,
            "broken": None
            if broken is None
            else {
                "promise": f"{broken.promise.part}.{broken.promise.name}",
                "why": broken.why,
                "repeat": None if broken.case is None else broken.case.repeat(),
            },
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "promises": [
                {
                    "part": item.part,
                    "name": item.name,
                    "sentence": item.sentence,
                    "unit": item.unit,
                    "planned": item.planned,
                    "held": item.held,
                    "notes": item.notes,
                }
                for item in self.promises
            ],
        }


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Which parts are run, and how."""

    parts: Sequence[Part]
    seed: int
    minutes: float
    jobs: int = 1
    only_case: int | None = None
    full: bool = False
    journal: Path | None = None

    def run(self) -> Outcome:
        """Run the parts; print one line per promise as each part ends. Stops at the first broken promise or signal."""
        stop = StopSignals()
        with stop.taken():
            return self._run(stop)

    def _run(self, stop: StopSignals) -> Outcome:
        promises: list[Promise] = []
        seconds: dict[str, float] = {}
        broken: BrokenPromiseError | None = None
        interrupted = False
        until_s = time.monotonic()
        whole = sum(part.share for part in self.parts) or 1.0
        for part in self.parts:
            until_s += _SHARED_OUT * part.share / whole * self.minutes * 60.0 if part.share else math.inf
            with tempfile.TemporaryDirectory(
                prefix=f"chatvla_torture_{part.name}_", ignore_cleanup_errors=True
            ) as name:
                run = PartRun(
                    part=part,
                    seed=self.seed,
                    minutes=self.minutes,
                    scratch=Path(name),
                    jobs=self.jobs,
                    only_case=self.only_case,
                    full=self.full,
                    journal=self.journal,
                    until_s=until_s,
                )
                try:
                    with stop.allowed():
                        broken = _attempt(run)
                except KeyboardInterrupt:
                    interrupted = True
                seconds[part.name] = time.monotonic() - run.started_s
            promises += run.promises
            if sys.stderr.isatty():
                print("\r\033[K", end="", file=sys.stderr, flush=True)
            for promise in run.promises:
                print(promise.line(broken=broken is not None and promise is broken.promise), flush=True)
            if broken is not None or interrupted:
                break
        return Outcome(
            seed=self.seed,
            minutes=self.minutes,
            promises=promises,
            broken=broken,
            seconds=seconds,
            interrupted=interrupted,
        )


def _attempt(run: PartRun) -> BrokenPromiseError | None:
    """Run a part; return what broke. A part that cannot go on, because a node does not start say, is broken too."""
    try:
        module, _, function = run.part.target.partition(":")
        getattr(importlib.import_module(module), function)(run)
    except BrokenPromiseError as error:
        return error
    except NoCaseError:
        raise
    except Exception as error:
        traceback.print_exc()
        promise = next((item for item in run.promises if item.held < item.planned), None) or run.promise(
            "runs", "the part runs", planned=1
        )
        return BrokenPromiseError(promise, f"the part could not go on: {type(error).__name__}: {error}", None)
    return None
