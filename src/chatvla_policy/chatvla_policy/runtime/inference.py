# SPDX-License-Identifier: Apache-2.0
"""One inference as a job and its outcome: made by the scheduler, run by any thread. No ROS. Units s."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chatvla_control.contracts import ActionChunk, Inference, Observation, Policy, Reasoning

__all__ = ["Job", "Outcome", "StageSeconds", "WritingOver", "run_job", "write_text"]


class WritingOver(Exception):  # noqa: N818
    """The text that is being written is not wanted any more."""


@dataclass(frozen=True, kw_only=True)
class StageSeconds:
    """Where the time of one inference went."""

    preprocess: float = 0.0
    """Images and prompt to tensors."""
    reasoning: float = 0.0
    """The language half: reading and writing."""
    denoise: float = 0.0
    """The action expert and all that follows it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that one inference depends on."""

    epoch: int
    """Which instruction and override it is for; an outcome of another epoch is dropped."""
    observation: Observation
    forced: str | None
    previous: ActionChunk | None
    settings: Any = None
    """Settings of the policy for this inference; None leaves them."""
    reason_anew: bool = False
    """Write a new text even where the last one would be kept."""
    writes: bool = False
    """It is foreseen to write a text, of a policy that mostly keeps one: it takes several times as long."""
    reset_seed: int | None = None
    """Forget the last instruction first, and draw from this seed."""
    adopt: Reasoning | None = None
    """A text that was written apart; it takes the place of the last."""
    begun_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an inference gave."""

    job: Job
    inference: Inference | None
    error: str
    """One sentence when there is no inference."""
    stages: StageSeconds
    seconds: float
    """Wall-clock time of the inference."""


def run_job(policy: Policy, job: Job, clock: Callable[[], float] = time.perf_counter) -> Outcome:
    """Return the outcome of `job`; whatever the policy raises becomes its error. Call from one thread at a time."""
    started = clock()
    inference, error = None, ""
    try:
        if job.reset_seed is not None:
            policy.reset(job.reset_seed)
        if job.settings is not None:
            policy.settings = job.settings  # type: ignore[attr-defined]
        if job.adopt is not None:
            policy.adopt(job.adopt)  # type: ignore[attr-defined]
        if job.reason_anew and hasattr(policy, "forget_reasoning"):
            policy.forget_reasoning()  # type: ignore[attr-defined]
        inference = policy.infer(job.observation, job.forced, job.previous)
        error = _defect(inference.chunk)
    except Exception as failure:  # A policy may fail in any way; the node reports the sentence and goes on.
        error = _sentence(failure)
    seconds = clock() - started
    stages = getattr(policy, "stage_seconds", None) or StageSeconds(reasoning=seconds)
    return Outcome(job=job, inference=None if error else _timed(inference), error=error, stages=stages, seconds=seconds)


def write_text(policy: Policy, job: Job, *, pause: Callable[[], None]) -> tuple[Reasoning | None, str]:
    """Return a new text about the observation of `job`, and what went wrong, one sentence or "".

    `pause` is called between the pieces of the text: whoever is in a hurry does his work there. It may raise
    WritingOver. Only for policies with `write`.
    """
    try:
        return policy.write(job.observation, pause=pause), ""  # type: ignore[attr-defined]
    except WritingOver:
        return None, ""
    except Exception as failure:  # As in run_job; acting goes on with the text it has.
        return None, _sentence(failure)


def _sentence(failure: Exception) -> str:
    return f"{type(failure).__name__}: {failure!s:.400}"


def _timed(inference: Inference | None) -> Inference | None:
    """Return the inference; a chunk that is valid no longer than its rows says so."""
    if inference is None:
        return None
    chunk = inference.chunk
    end_s = chunk.start_s + len(chunk.actions) * chunk.step_period_s
    if chunk.valid_until_s <= end_s:
        return inference
    return replace(inference, chunk=replace(chunk, valid_until_s=end_s))


def _defect(chunk: ActionChunk) -> str:
    """Return what makes a chunk unusable for anyone, or ""."""
    if chunk.actions.ndim != 2 or not len(chunk.actions):
        return f"the policy gave a chunk of shape {chunk.actions.shape}, expected (T, D) with T >= 1"
    if not np.isfinite(chunk.actions).all():
        return "the policy gave actions that are not finite numbers; the checkpoint or its statistics are broken"
    if not (math.isfinite(chunk.start_s) and chunk.step_period_s > 0.0):
        return f"the policy gave a chunk that starts at {chunk.start_s} with step {chunk.step_period_s} s"
    return ""
