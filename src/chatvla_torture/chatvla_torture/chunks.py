# SPDX-License-Identifier: Apache-2.0
"""Random action chunks, delays, clocks and pauses against the chunk check and the chunk player. No ROS.

One case is a block of chunks on one robot; the blocks are spread over processes.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

from chatvla_control.campaign import BrokenPromiseError as BrokenLimitError
from chatvla_control.campaign import CampaignReport, run_campaign
from chatvla_control.robot_spec import robot_spec
from chatvla_torture.campaign import PartRun
from chatvla_torture.promise import Case

__all__ = ["run"]

_BLOCK = 1000
_AT_FULL = 1_000_000
_ROBOTS = ("arx_r5", "franka")


def run(part: PartRun) -> None:
    """Run the part."""
    planned = part.scaled(_AT_FULL, least=_BLOCK)
    limits = part.promise(
        "limits",
        "position, speed and acceleration limits hold at every tick, whatever chunk, delay and clock",
        planned=planned,
        unit="chunks",
    )
    ticks = accepted = 0
    blocks = part.cases(-(-planned // _BLOCK))
    with ProcessPoolExecutor(part.jobs, mp_context=get_context("spawn")) as pool:
        running: dict[Future[CampaignReport], Case] = {}
        more = True
        while more or running:
            while more and len(running) < part.jobs + 1:
                case = next(blocks, None)
                more = case is not None
                if case is not None:
                    running[pool.submit(run_block, case.number, case.seed)] = case
            done, _ = wait(running, return_when=FIRST_COMPLETED) if running else (set(), None)
            for future in done:
                case = running.pop(future)
                try:
                    report = future.result()
                except BrokenLimitError as error:
                    pool.shutdown(wait=False, cancel_futures=True)
                    limits.require(False, str(error), case)
                    raise
                limits.hold(report.chunks)
                ticks, accepted = ticks + report.ticks, accepted + report.accepted
                part.say(f"{limits.held} of {planned} chunks")
    limits.notes.update({"ticks": ticks, "passed the check": accepted})


def run_block(number: int, seed: int) -> CampaignReport:
    """Try one block of chunks. Raises chatvla_control.campaign.BrokenPromiseError."""
    spec = robot_spec(_ROBOTS[number % len(_ROBOTS)])
    return run_campaign(spec, chunks=_BLOCK, seed=seed)
