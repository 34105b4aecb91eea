# SPDX-License-Identifier: Apache-2.0
"""Random action chunks, delays, clocks and pauses against the chunk check and the chunk player. No ROS.

One case is a block of chunks on one robot; the blocks are spread over processes. A journal keeps finished blocks, so
that a million chunks can be tried in several sittings. A chunk of poses takes ten times as long as one of joints,
therefore most blocks are of joints alone.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from chatvla_control.campaign import BrokenPromiseError as BrokenLimitError
from chatvla_control.campaign import run_campaign
from chatvla_control.robot_spec import robot_spec
from chatvla_control.subordinate import worker_pool
from chatvla_torture.campaign import PartRun
from chatvla_torture.promise import Case

__all__ = ["run", "run_block"]

_BLOCK = 1000
_AT_TWENTY = 150_000
_FULL = 1_000_000
_MIX: tuple[tuple[str, float, int], ...] = (
    ("arx_r5", 0.0, 15),
    ("franka", 0.0, 2),
    ("ur5e", 0.0, 1),
    ("arx_r5", 0.5, 1),
    ("franka", 0.5, 1),
)
"""Robot, share of poses among its chunks, blocks of twenty."""
_BLOCKS = [(robot, poses) for robot, poses, count in _MIX for _ in range(count)]
Figures = dict[str, int]


def run(part: PartRun) -> None:
    """Run the part."""
    os.environ["OMP_NUM_THREADS"] = "1"
    planned = part.scaled(_AT_TWENTY, full=_FULL, least=_BLOCK)
    limits = part.promise(
        "limits",
        "position, speed and acceleration limits hold at every tick, whatever chunk, delay and clock",
        planned=planned,
        unit="chunks",
    )
    total: Counter[str] = Counter()
    done = _done(part)
    for figures in done.values():
        total.update(figures)
    limits.hold(total["chunks"])
    with worker_pool(part.jobs) as pool:
        blocks = (case for case in part.cases(-(-planned // _BLOCK)) if case.number not in done)
        for case, future in _finished(pool, blocks, part.jobs + 1):
            try:
                figures = future.result()
            except BrokenLimitError as error:
                limits.require(False, str(error), case)
                raise
            total.update(figures)
            limits.hold(figures["chunks"])
            _keep(part.journal, case, figures)
            part.say(f"{limits.held} of {planned} chunks")
    limits.notes.update({name: total[name] for name in sorted(total) if name != "chunks"})


def run_block(number: int, seed: int) -> Figures:
    """Try one block of chunks; return its figures. Raises chatvla_control.campaign.BrokenPromiseError."""
    robot, poses = _BLOCKS[number % len(_BLOCKS)]
    report = run_campaign(robot_spec(robot), chunks=_BLOCK, seed=seed, pose_share=poses)
    return {
        "chunks": report.chunks,
        "ticks": report.ticks,
        "passed the check": report.accepted,
        "played": report.loaded,
        "ticks with the tool's guard": report.guarded_ticks,
        f"of {robot}{' half poses' if poses else ''}": report.chunks,
    }


def _finished(pool: ProcessPoolExecutor, cases: Iterator[Case], most: int) -> Iterator[tuple[Case, Future[Figures]]]:
    """Yield blocks as they end; at most `most` wait or run at once."""
    running: dict[Future[Figures], Case] = {}
    more = True
    while more or running:
        while more and len(running) < most:
            case = next(cases, None)
            more = case is not None
            if case is not None:
                running[pool.submit(run_block, case.number, case.seed)] = case
        done, _ = wait(running, return_when=FIRST_COMPLETED) if running else (set[Future[Figures]](), None)
        for future in done:
            yield running.pop(future), future


def _done(part: PartRun) -> dict[int, Figures]:
    """Return the figures of this campaign's blocks that the journal holds, by number."""
    found: dict[int, Figures] = {}
    if part.journal is not None and part.journal.exists() and part.only_case is None:
        for line in part.journal.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["seed"] == part.seed:
                found[entry["block"]] = entry["figures"]
    return found


def _keep(journal: Path | None, case: Case, figures: Figures) -> None:
    if journal is not None:
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"seed": case.campaign_seed, "block": case.number, "figures": figures}) + "\n")
