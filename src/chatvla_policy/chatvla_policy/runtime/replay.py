# SPDX-License-Identifier: Apache-2.0
"""Run a policy over recorded inputs as the node would: same sync, same scheduler, the recording's clock. No ROS.

Inference is taken to last a fixed time of that clock, so the same recording, checkpoint and seed give the same bytes
on any machine that computes the same floats. The robot of the recording does not follow the replayed chunks.
Units: rad, m, s. Shapes: T chunk steps, D joints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_port import JointState
from chatvla_control.contracts import ActionChunk, Inference, Policy
from chatvla_policy.runtime.inference import Outcome, run_job
from chatvla_policy.runtime.scheduler import Scheduler

__all__ = ["Input", "OpenLoopError", "Replayed", "replayed"]

HORIZONS_S = (0.1, 0.2, 0.5, 0.9)
"""Where the open-loop error is taken, time after the observation."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One recorded message; exactly one of the four is given."""

    received_s: float
    image: tuple[str, float, NDArray[np.uint8]] | None = None
    """View, stamp [s], RGB image."""
    joints: JointState | None = None
    instruction: str | None = None
    """A new instruction; "" stops."""
    refusal: tuple[str, str] | None = None
    """View, or "" for joint states, and why the message could not be read."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One inference of the replay."""

    published_s: float
    inference: Inference
    """What the node would have published; seconds spent are left out, they are no part of the result."""
    planned: ActionChunk
    """The policy's own chunk, before the node cut and joined it."""


def replayed(
    inputs: Iterable[Input],
    policy: Policy,
    scheduler: Scheduler,
    *,
    delay_s: float,
    seed: int = 0,
    on_failure: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Replayed]:
    """Yield the inferences over `inputs`, given in the order of their reception; each lasts `delay_s`."""
    outcome: Outcome | None = None
    ready_s = now_s = -np.inf
    for item in inputs:
        now_s = max(now_s, item.received_s)
        if outcome is not None and now_s >= ready_s:
            done, outcome = outcome, None
            if done.error:
                on_failure(done.error)
            inference = scheduler.finish(done, ready_s)
            if inference is not None and done.inference is not None:
                reasoning = replace(inference.reasoning, seconds=0.0)
                yield Replayed(
                    published_s=ready_s,
                    inference=replace(inference, reasoning=reasoning),
                    planned=done.inference.chunk,
                )
        _take(item, scheduler, now_s, seed)
        if outcome is None and (job := scheduler.next_job(now_s)) is not None:
            outcome, ready_s = run_job(policy, job), now_s + delay_s


def _take(item: Input, scheduler: Scheduler, now_s: float, seed: int) -> None:
    """Give one recorded message to the scheduler."""
    if item.image is not None:
        view, stamp_s, image = item.image
        scheduler.sync.add_image(view, image, stamp_s)
    elif item.joints is not None:
        scheduler.sync.add_joints(item.joints)
    elif item.refusal is not None:
        view, message = item.refusal
        if view:
            scheduler.sync.refuse_image(view, message)
        else:
            scheduler.sync.refuse_joints(message)
    elif item.instruction:
        scheduler.follow(item.instruction, seed=seed)
    else:
        scheduler.stop(now_s)


class OpenLoopError:
    """Distance between planned and recorded motion, per joint and horizon; mean absolute error."""

    def __init__(self, times_s: NDArray[np.float64], rows: NDArray[np.float64], names: tuple[str, ...]) -> None:
        """Take the recorded motion: ascending times, shape (N,), and positions [rad, m], shape (N, D)."""
        self._times, self._rows, self._names = times_s, rows, names
        self._errors: dict[float, list[NDArray[np.float64]]] = {horizon: [] for horizon in HORIZONS_S}

    def add(self, chunk: ActionChunk) -> None:
        """Compare one planned chunk; horizons beyond the chunk or the recording are left out."""
        grid = chunk.start_s + chunk.step_period_s * np.arange(len(chunk.actions))
        for horizon, errors in self._errors.items():
            time_s = chunk.stamp_s + horizon
            if not (grid[0] <= time_s <= grid[-1] and self._times[0] <= time_s <= self._times[-1]):
                continue
            planned = np.array([np.interp(time_s, grid, column) for column in chunk.actions.T])
            recorded = np.array([np.interp(time_s, self._times, column) for column in self._rows.T])
            errors.append(np.abs(planned - recorded))

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return {horizon [s]: {joint: mean absolute error [rad, m], "n": count}}."""
        found: dict[str, dict[str, float]] = {}
        for horizon, errors in self._errors.items():
            if errors:
                mean = np.mean(errors, axis=0)
                found[f"{horizon:g}"] = {
                    name: round(float(value), 6) for name, value in zip(self._names, mean, strict=True)
                }
                found[f"{horizon:g}"]["n"] = len(errors)
        return found
