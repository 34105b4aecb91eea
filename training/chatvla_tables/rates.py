# SPDX-License-Identifier: Apache-2.0
"""Keep what work has taken, and say honestly how long the rest takes.

rates.json   measured seconds per amount for each kind of work that ran from its beginning to its end
hours.json   seconds of every unit over all sessions, stopped and failed ones too
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from chatvla_tables.plan import Unit, spared

__all__ = ["Hours", "Rates", "estimate"]


class Rates:
    """Measured seconds per amount, kept in `path` between runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # What an older version measured does not say its sort.
        self._known: dict[str, dict[str, Any]] = {key: entry for key, entry in _read(path).items() if "sort" in entry}

    def add(self, unit: Unit, seconds: float) -> None:
        """Take note of a unit that was run from its beginning."""
        entry = self._known.setdefault(unit.rate_key, {"sort": unit.sort, "seconds": 0.0, "amount": 0.0, "work": 0.0})
        entry["seconds"] += seconds
        entry["amount"] += unit.amount
        entry["work"] += unit.work
        _write(self._path, self._known)

    def measured(self, unit: Unit) -> bool:
        """Return whether this very kind of work was measured."""
        return unit.rate_key in self._known

    def seconds(self, unit: Unit) -> float | None:
        """Return the time of a whole unit; where its work was never measured, by the mean of its sort, None without."""
        entry = self._known.get(unit.rate_key)
        if entry is not None:
            return entry["seconds"] / entry["amount"] * unit.amount
        same = [entry for entry in self._known.values() if entry.get("sort") == unit.sort]
        if not same:
            return None
        return sum(entry["seconds"] for entry in same) / sum(entry["work"] for entry in same) * unit.work


class Hours:
    """Seconds that every unit has taken so far, kept in `path` between runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, float] = _read(path)

    def add(self, name: str, seconds: float) -> None:
        """Add time of the unit `name`."""
        self._seconds[name] = round(self._seconds.get(name, 0.0) + seconds, 1)
        _write(self._path, self._seconds)

    def seconds(self, name: str) -> float:
        """Return the time of the unit `name` over all sessions [s]."""
        return self._seconds.get(name, 0.0)

    def of(self, names: Iterable[str]) -> float:
        """Return the time of units together [h]."""
        return sum(self._seconds.get(name, 0.0) for name in set(names)) / 3600


def estimate(units: Sequence[Unit], rates: Rates, jobs: int) -> str:
    """Return how long the units that are left take with `jobs` side by side; what was never measured is named."""
    unneeded = spared(units)
    left = [unit for unit in units if not unit.done and unit.key not in unneeded]
    if not left:
        return "nothing left"
    times = {unit.key: seconds for unit in left if (seconds := rates.seconds(unit)) is not None}
    words = f"{len(left)} units left"
    if times:
        words += f", about {_duration(_together(left, times, jobs))}"
    if means := sum(unit.key in times and not rates.measured(unit) for unit in left):
        words += f", {means} units by their kind's mean"
    if unknown := [unit for unit in left if unit.key not in times]:
        kinds = len({unit.rate_key for unit in unknown})
        words += f"{' and' if times else ','} {len(unknown)} whose {kinds} kinds were never measured"
    return words


def _together(left: Sequence[Unit], times: dict[str, float], jobs: int) -> float:
    """Return the time of all [s]: no less than the longest chain, and what runs alone comes last."""
    ends: dict[str, float] = {}
    for unit in left:
        ends[unit.key] = times.get(unit.key, 0.0) + max((ends.get(key, 0.0) for key in unit.after), default=0.0)
    alone = sum(times.get(unit.key, 0.0) for unit in left if unit.alone)
    beside = [unit.key for unit in left if not unit.alone]
    whole = sum(times.get(key, 0.0) for key in beside) / jobs
    return alone + max([whole, *(ends[key] for key in beside)])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)
