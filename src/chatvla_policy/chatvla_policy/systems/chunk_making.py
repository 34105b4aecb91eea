# SPDX-License-Identifier: Apache-2.0
"""Give an action head's rows their limits, times and origin: the same for every system that has such a head.

Shapes: T chunk steps; A action dims; P committed rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk, ActionMode, Observation, Reasoning
from chatvla_policy.checkpoint.setup import RobotSetup
from chatvla_policy.processing.chunks import committed_rows, playable_rows
from chatvla_policy.processing.table_room import raised_rows

__all__ = ["decided_rows", "rows_within_limits", "timed_chunk"]


def decided_rows(
    setup: RobotSetup, observation: Observation, previous: ActionChunk | None, *, commit_s: float, horizon: int
) -> NDArray[np.float64] | None:
    """Return the rows, shape (P, A), that the chunk being played already decides, or None."""
    if previous is None or commit_s <= 0 or previous.robot != setup.spec.name or previous.mode is not setup.mode:
        return None
    return committed_rows(
        previous,
        start_s=observation.stamp_s,
        step_period_s=setup.step_period_s,
        until_s=observation.stamp_s + commit_s,
        horizon=horizon,
    )


def rows_within_limits(
    setup: RobotSetup, normalised: NDArray[np.float32], state: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return normalised rows, shape (T, A), in rad and m within the robot's limits; `state` was measured."""
    rows = setup.statistics.denormalise_actions(normalised, state)
    if setup.mode is not ActionMode.JOINT_POSITION:
        return rows
    return playable_rows(raised_rows(rows, setup.spec), setup.spec, step_period_s=setup.step_period_s)


def timed_chunk(
    setup: RobotSetup,
    observation: Observation,
    rows: NDArray[np.float64],
    reasoning: Reasoning,
    *,
    chunk_id: str,
    checkpoint_hash: str,
) -> ActionChunk:
    """Return the chunk with its times: row 0 is the target at the observation's stamp."""
    return ActionChunk(
        id=chunk_id,
        actions=rows,
        joint_names=setup.spec.joint_names,
        robot=setup.spec.name,
        mode=setup.mode,
        stamp_s=observation.stamp_s,
        start_s=observation.stamp_s,
        step_period_s=setup.step_period_s,
        valid_until_s=observation.stamp_s + setup.step_period_s * len(rows),
        policy=reasoning.policy,
        reasoning_id=reasoning.id,
        reasoning_source=reasoning.source,
        checkpoint_hash=checkpoint_hash,
        statistics_hash=setup.statistics.sha256(),
    )
