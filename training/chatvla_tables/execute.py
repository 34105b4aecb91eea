# SPDX-License-Identifier: Apache-2.0
"""Run units side by side, each when what it needs is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chatvla_control.subordinate import end_with_parent
from chatvla_tables.makers import write_maker
from chatvla_tables.plan import Unit, spared, unit_name
from chatvla_tables.rates import Hours, Rates, estimate

__all__ = ["HOURS", "RATES", "execute"]

RATES = "rates.json"
HOURS = "hours.json"
_LOOK_S = 0.5
_NOTE_S = 60.0
"""How often the time of running units is written down: a kill loses no more."""


@dataclass
class _Running:
    """One process."""

    unit: Unit
    process: subprocess.Popen[bytes]
    fresh: bool
    """Whether all of the unit's time is known: only then it is a rate."""
    before_s: float
    """Time that is written down for a unit that has since been deleted."""
    noted: float = field(default_factory=time.monotonic)
    """Up to when its time is written down."""


def execute(
    units: Sequence[Unit], *, jobs: int, folder: Path, times: Path | None = None, quiet: bool = False
) -> dict[str, str]:
    """Run what is not done and needed; return the units that failed with their last line.

    `times` is the folder of RATES and HOURS, by default `folder`.
    What needs a failed unit is left out. KeyboardInterrupt ends all processes; the next call goes on.
    """
    from tqdm import tqdm

    rates, hours = Rates((times or folder) / RATES), Hours((times or folder) / HOURS)
    done = {unit.key for unit in units if unit.done} | spared(units)
    waiting = [unit for unit in units if unit.key not in done]
    failed: dict[str, str] = {}
    running: list[_Running] = []
    # The estimate is said by the postfix: tqdm's own knows nothing of how long units take.
    shown = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
    with tqdm(total=len(units), initial=len(done), unit="unit", disable=quiet, bar_format=shown) as bar:
        bar.set_postfix_str(estimate(units, rates, jobs))
        try:
            while waiting or running:
                _start(waiting, running, done, failed, jobs=jobs, folder=folder, hours=hours)
                for item in [item for item in running if item.process.poll() is not None]:
                    running.remove(item)
                    _note(item, hours, folder)
                    _finish(item, rates, hours, done, failed, folder)
                    bar.update(1)
                    bar.set_postfix_str(estimate(units, rates, jobs))
                for item in running:
                    if time.monotonic() - item.noted >= _NOTE_S:
                        _note(item, hours, folder)
                if not running and not _ready(waiting, done):
                    break
                time.sleep(_LOOK_S)
        finally:
            for item in running:
                item.process.terminate()
            for item in running:
                item.process.wait()
                _note(item, hours, folder)
    for unit in waiting:
        failed.setdefault(unit.key, "left out: what it needs failed")
    return failed


def _ready(waiting: Sequence[Unit], done: set[str]) -> list[Unit]:
    return [unit for unit in waiting if set(unit.after) <= done]


def _start(
    waiting: list[Unit],
    running: list[_Running],
    done: set[str],
    failed: Mapping[str, str],
    *,
    jobs: int,
    folder: Path,
    hours: Hours,
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
        begins, before_s = not unit.folder.exists(), hours.seconds(unit_name(unit, folder))
        if unit.made_by is not None:
            write_maker(unit.folder, unit.made_by, unit.trained_in)
        with (logs / f"{_name(unit, folder)}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                preexec_fn=end_with_parent(),
            )
        running.append(
            _Running(unit=unit, process=process, fresh=begins or before_s > 0, before_s=before_s if begins else 0.0)
        )


def _note(item: _Running, hours: Hours, folder: Path) -> None:
    """Write down the time since the last note."""
    now = time.monotonic()
    hours.add(unit_name(item.unit, folder), now - item.noted)
    item.noted = now


def _finish(item: _Running, rates: Rates, hours: Hours, done: set[str], failed: dict[str, str], folder: Path) -> None:
    if item.process.returncode == 0 and item.unit.done:
        done.add(item.unit.key)
        if item.fresh:
            rates.add(item.unit, hours.seconds(unit_name(item.unit, folder)) - item.before_s)
        return
    log = folder / "logs" / f"{_name(item.unit, folder)}.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    failed[item.unit.key] = f"{lines[-1] if lines else 'no output'} (log: {log})"


def _name(unit: Unit, folder: Path) -> str:
    return unit_name(unit, folder).replace("/", "_")
