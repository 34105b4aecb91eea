# SPDX-License-Identifier: Apache-2.0
"""Draw chunks for the campaign: good ones, noisy ones, and every kind of bad one. No ROS. Units rad, m, s."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import ArmModel
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.rotations import axis_rotation, six_from_matrix

__all__ = ["random_joint_chunk", "random_pose_chunk"]

Array = NDArray[np.float64]


def random_joint_chunk(spec: RobotSpec, random: np.random.Generator, start: Array, now_s: float) -> ActionChunk:
    """Return a chunk of joint rows near or far from `start` [rad, m], shape (D,): good, noisy, at and beyond limits."""
    steps = int(random.choice([1, 2, 3, 16, 50]))
    span = spec.upper - spec.lower
    kind = random.integers(0, 8)
    grid = np.arange(steps)[:, None]
    period_s = float(random.choice([1.0 / spec.rate_hz, 0.005, 0.02, 0.5, random.uniform(1e-3, 0.2)]))
    if kind == 0:  # feasible: a slow wave
        rows = start + 0.02 * span * np.sin(grid * period_s * random.uniform(0.5, 3.0, spec.width))
    elif kind == 1:  # a learned chunk's noise
        rows = start + random.normal(0.0, 1e-3, (steps, spec.width))
    elif kind == 2:  # straight at a limit at full speed and beyond
        rows = start + grid * period_s * spec.velocity * random.choice([-1.5, -1.0, 1.0, 1.5], spec.width)
    elif kind == 3:  # anywhere inside the limits
        rows = spec.lower + random.random((steps, spec.width)) * span
    elif kind == 4:  # back and forth between the limits
        rows = np.where(grid % 2 == 0, spec.lower, spec.upper) + np.zeros((steps, spec.width))
    elif kind == 5:  # far outside
        rows = random.choice([-1e308, -1e3, 1e3, 1e308], (steps, spec.width))
    elif kind == 6:  # not finite in one place
        rows = np.repeat(start[None], steps, axis=0)
        rows[random.integers(steps), random.integers(spec.width)] = random.choice([np.nan, np.inf, -np.inf])
    else:  # one step
        rows = np.repeat((start + random.normal(0.0, 0.2, spec.width))[None], steps, axis=0)
    return _timed(spec, random, rows, ActionMode.JOINT_POSITION, period_s, now_s)


def random_pose_chunk(
    spec: RobotSpec, arms: Sequence[ArmModel], random: np.random.Generator, start: Array, now_s: float
) -> ActionChunk:
    """Return a chunk of tool poses that begins near the pose at `start` [rad, m], shape (D,), or anywhere."""
    steps = int(random.choice([1, 2, 3, 16, 50]))
    period_s = float(random.choice([1.0 / spec.rate_hz, 0.005, 0.02, 0.5, random.uniform(1e-3, 0.2)]))
    kind = int(random.integers(0, 9))
    rows = np.concatenate([_arm_rows(arm, spec, random, start, steps, period_s, kind) for arm in arms], axis=1)
    if kind == 8:  # not finite in one place
        rows[random.integers(steps), random.integers(rows.shape[1])] = random.choice([np.nan, np.inf, -np.inf])
    return _timed(spec, random, rows, ActionMode.CARTESIAN_POSE, period_s, now_s)


def _arm_rows(
    arm: ArmModel,
    spec: RobotSpec,
    random: np.random.Generator,
    start: Array,
    steps: int,
    period_s: float,
    kind: int,
) -> Array:
    pose = arm.chain.forward(start[arm.places])
    limits, grid = arm.cartesian, np.arange(steps)[:, None]
    lower, upper = np.array(limits.lower), np.array(limits.upper)
    tools = np.repeat(pose[None, :3, 3], steps, axis=0)
    turns = np.zeros(steps)
    axis = random.normal(size=3)
    axis /= np.linalg.norm(axis)
    if kind == 0:  # feasible: a slow wave
        tools = tools + 0.03 * np.sin(grid * period_s * random.uniform(0.5, 3.0, 3))
        turns = 0.1 * np.sin(grid[:, 0] * period_s)
    elif kind == 1:  # straight on at full speed and beyond, turning
        tools = tools + grid * period_s * limits.speed_m_s * random.choice([0.5, 1.0, 3.0]) * axis
        turns = grid[:, 0] * period_s * limits.speed_rad_s * random.choice([-2.0, -1.0, 0.5, 1.0])
    elif kind == 2:  # straight down through the table
        tools = tools - grid * period_s * np.array([0.0, 0.0, random.choice([0.3, 1.0, 10.0])])
    elif kind == 3:  # anywhere in the box
        tools = lower + random.random((steps, 3)) * (upper - lower)
        turns = random.uniform(-3.1, 3.1, steps)
    elif kind == 4:  # between corners of the box and beyond
        tools = np.where(random.random((steps, 3)) < 0.5, lower - random.choice([0.0, 0.3]), upper)
    elif kind == 5:  # far outside
        tools = random.choice([-1e300, -1e3, 1e3, 1e300], (steps, 3))
    elif kind == 6:  # one step
        tools = tools + random.normal(0.0, 0.2, 3)
        turns = np.full(steps, random.normal(0.0, 1.0))
    six = np.stack([six_from_matrix(pose[:3, :3] @ axis_rotation(axis, float(turn))) for turn in turns])
    if kind == 7:  # no rotation, or a noisy one
        six = six * random.choice([0.0, 1.0]) + random.normal(0.0, random.choice([0.0, 0.02, 1.0]), (steps, 6))
    gripper = random.uniform(spec.lower[arm.gripper], spec.upper[arm.gripper], (steps, 1))
    return np.concatenate([tools, six, gripper], axis=1)


def _timed(
    spec: RobotSpec, random: np.random.Generator, rows: Array, mode: ActionMode, period_s: float, now_s: float
) -> ActionChunk:
    steps = len(rows)
    start_s = now_s + float(random.choice([0.0, 0.0, -0.01, 0.03, random.normal(0.0, 0.3)]))
    if random.random() < 0.1:
        start_s = now_s + float(random.choice([-1e4, 1e4, np.nan]))
    if random.random() < 0.1:
        period_s = float(random.choice([0.0, -1.0, np.nan, 1e-300, 1e300]))
    return ActionChunk(
        id="campaign",
        actions=rows,
        joint_names=spec.joint_names,
        robot=spec.name,
        mode=mode,
        stamp_s=min(start_s, now_s),
        start_s=start_s,
        step_period_s=period_s,
        valid_until_s=start_s + float(random.choice([steps * period_s, steps * period_s, 1.0, 0.05, -1.0, 1e9])),
        policy="campaign",
    )
