# SPDX-License-Identifier: Apache-2.0
"""Run units side by side, each when what it needs is done, and say honestly how long the rest takes.

The estimate rests on measured seconds per step and per trial alone; kinds of work that were never measured are named,
not guessed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chatvla_control.subordinate import end_with_parent
from chatvla_tables.makers import write_maker
from chatvla_tables.plan import Unit, spared, unit_name

__all__ = ["Rates", "estimate", "execute"]

_LOOK_S = 0.5


class Rates:
    """Measured seconds per amount for each kind of work, kept in the output folder between runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.is_file() else {}

    def add(self, unit: Unit, seconds: float) -> None:
        """Take note of a unit that was run from its beginning."""
        entry = self._known.setdefault(unit.rate_key, {"seconds": 0.0, "amount": 0.0})
        entry["seconds"] += seconds
        entry["amount"] += unit.amount
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(".tmp")
        aside.write_text(json.dumps(self._known, indent=1) + "\n", encoding="utf-8")
        aside.replace(self._path)

    def seconds(self, unit: Unit) -> float | None:
        """Return the time of a whole unit, None when its kind was never measured."""
        entry = self._known.get(unit.rate_key)
        return None if entry is None else entry["seconds"] / entry["amount"] * unit.amount

    def hours(self) -> float:
        """Return the time measured so far, over all processes [h]."""
        return sum(entry["seconds"] for entry in self._known.values()) / 3600


def estimate(units: Sequence[Unit], rates: Rates, jobs: int) -> str:
    """Return how long the units that are left take with `jobs` side by side."""
    unneeded = spared(units)
    left = [unit for unit in units if not unit.done and unit.key not in unneeded]
    known = [seconds for unit in left if (seconds := rates.seconds(unit)) is not None]
    unknown = len(left) - len(known)
    if not left:
        return "nothing left"
    words = f"{len(left)} units left"
    if known:
        words += f", about {_duration(sum(known) / jobs)}"
    if unknown:
        kinds = len({unit.rate_key for unit in left if rates.seconds(unit) is None})
        words += f"{' and' if known else ','} {unknown} whose {kinds} kinds were never measured"
    return words


@dataclass
class _Running:
    """One process."""

    unit: Unit
    process: subprocess.Popen[bytes]
    started: float
    fresh: bool
    """Whether the unit began from nothing: only then its time is a rate."""


def execute(
    units: Sequence[Unit], *, jobs: int, folder: Path, rates: Path | None = None, quiet: bool = False
) -> dict[str, str]:
    """Run what is not done and needed; return the units that failed with their last line.

    `rates` is the file of measured times, by default rates.json in `folder`.
    What needs a failed unit is left out. KeyboardInterrupt ends all processes; the next call goes on.
    """
    from tqdm import tqdm

    known = Rates(rates or folder / "rates.json")
    done = {unit.key for unit in units if unit.done} | spared(units)
    waiting = [unit for unit in units if unit.key not in done]
    failed: dict[str, str] = {}
    running: list[_Running] = []
    with tqdm(total=len(units), initial=len(done), unit="unit", disable=quiet) as bar:
        bar.set_postfix_str(estimate(units, known, jobs))
        try:
            while waiting or running:
                _start(waiting, running, done, failed, jobs=jobs, folder=folder)
                for item in [item for item in running if item.process.poll() is not None]:
                    running.remove(item)
                    _finish(item, known, done, failed, folder)
                    bar.update(1)
                    bar.set_postfix_str(estimate(units, known, jobs))
                if not running and not _ready(waiting, done):
                    break
                time.sleep(_LOOK_S)
        finally:
            for item in running:
                item.process.terminate()
            for item in running:
                item.process.wait()
    for unit in waiting:
        failed.setdefault(unit.key, "left out: what it needs failed")
    return failed


def _ready(waiting: Sequence[Unit], done: set[str]) -> list[Unit]:
    return [unit for unit in waiting if set(unit.after) <= done]


def _start(
    waiting: list[Unit], running: list[_Running], done: set[str], failed: Mapping[str, str], *, jobs: int, folder: Path
) -> None:
    """Start what can run, up to `jobs` processes of one thread each; what runs alone, when nothing else can."""
    if any(item.unit.alone for item in running):
        return
    ready = _ready(waiting, done)
    beside = [unit for unit in ready if not unit.alone][: max(0, jobs - len(running))]
    for unit in beside or ([] if running else ready[:1]):
        waiting.remove(unit)
        logs = folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        spec = logs / f"{_name(unit, folder)}.json"
        spec.write_text(json.dumps(unit.spec), encoding="utf-8")
        command = [sys.executable, "-m", "chatvla_tables.unit", unit.kind, str(unit.folder), str(spec)]
        fresh = not unit.folder.exists()
        if unit.made_by is not None:
            write_maker(unit.folder, unit.made_by)
        with (logs / f"{_name(unit, folder)}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                preexec_fn=end_with_parent(),
            )
        running.append(_Running(unit=unit, process=process, started=time.monotonic(), fresh=fresh))


def _finish(item: _Running, rates: Rates, done: set[str], failed: dict[str, str], folder: Path) -> None:
    if item.process.returncode == 0 and item.unit.done:
        done.add(item.unit.key)
        if item.fresh:
            rates.add(item.unit, time.monotonic() - item.started)
        return
    log = folder / "logs" / f"{_name(item.unit, folder)}.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    failed[item.unit.key] = f"{lines[-1] if lines else 'no output'} (log: {log})"


def _name(unit: Unit, folder: Path) -> str:
    return unit_name(unit, folder).replace("/", "_")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
