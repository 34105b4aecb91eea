# SPDX-License-Identifier: Apache-2.0
"""Run in-process trials over several processes. The results do not depend on how many there are."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path

from chatvla_control.subordinate import worker_pool
from chatvla_eval.film import TrialFilm
from chatvla_eval.in_process import InProcessSession
from chatvla_eval.session import TrialSettings, TrialSetup
from chatvla_eval.tasks import task_by_name
from chatvla_eval.trace import TrialTrace
from chatvla_eval.trial import run_trial
from chatvla_eval.trial_result import TrialResult

__all__ = ["TrialJob", "default_jobs", "run_jobs"]

_session: InProcessSession | None = None
_session_key: tuple[str, str, float, tuple[float, float] | None, str] | None = None


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """One trial to run, with all that a worker process needs."""

    task: str
    policy: str
    setup: TrialSetup
    settings: TrialSettings
    replan_s: float = 0.5
    delay_s: tuple[float, float] | None = None
    device: str = "cpu"
    """Where a checkpoint computes, as torch names it."""
    film_folder: str = ""
    """Where to put a film of the trial; empty for none."""
    trace_folder: str = ""
    """Results folder to put the trial's trace into, for a report; empty for none."""


def default_jobs() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs: Sequence[TrialJob], *, workers: int) -> Generator[TrialResult, None, None]:
    """Yield the results as they come, over at most `workers` processes; one worker means this process.

    A trial's own exception passes through. Closing the iterator ends the processes.
    """
    if workers <= 1 or len(jobs) <= 1:
        try:
            yield from map(run_job, jobs)
        finally:
            _close_session()
        return
    with worker_pool(min(workers, len(jobs))) as pool:
        futures: list[Future[TrialResult]] = [pool.submit(run_job, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()


def run_job(job: TrialJob) -> TrialResult:
    """Return the result of one trial; the session of this process is kept for the next."""
    session = _session_of(job)
    film = TrialFilm() if job.film_folder else None
    trace = TrialTrace() if job.trace_folder else None
    result = run_trial(
        session,
        task_by_name(job.task),
        job.setup,
        settings=job.settings,
        on_frame=film.add if film else None,
        trace=trace,
    )
    if trace is not None:
        trace.write(Path(job.trace_folder), job.setup.index)
    if film is not None:
        film.write(Path(job.film_folder), f"trial_{job.setup.index:03d}", result, session.policy_name)
    return result


def _close_session() -> None:
    """Free this process's bench: an OpenGL context must not live until the interpreter ends."""
    global _session, _session_key
    if _session is not None:
        _session.close()
    _session = _session_key = None


def _session_of(job: TrialJob) -> InProcessSession:
    global _session, _session_key
    key = (job.task, job.policy, job.replan_s, job.delay_s, job.device)
    if _session is None or _session_key != key:
        _close_session()
        _session = InProcessSession(
            task=job.task, policy=job.policy, replan_s=job.replan_s, delay_s=job.delay_s, device=job.device
        )
        _session_key = key
    return _session
