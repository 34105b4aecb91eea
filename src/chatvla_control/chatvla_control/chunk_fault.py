# SPDX-License-Identifier: Apache-2.0
"""Name what can be wrong with an action chunk, and how far one may go. No ROS. Units rad, m, s."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CheckSettings", "ChunkFault", "FaultCode"]


class FaultCode(StrEnum):
    """Why a chunk was refused."""

    MALFORMED = "malformed"
    """The message does not hold together (a conversion error)."""
    WRONG_ROBOT = "wrong_robot"
    UNKNOWN_MODE = "unknown_mode"
    WRONG_NAMES = "wrong_names"
    WRONG_ORDER = "wrong_order"
    WRONG_SIZE = "wrong_size"
    NOT_FINITE = "not_finite"
    BAD_PERIOD = "bad_period"
    STALE_STAMP = "stale_stamp"
    FUTURE_STAMP = "future_stamp"
    START_IN_PAST = "start_in_past"
    START_IN_FUTURE = "start_in_future"
    BAD_VALIDITY = "bad_validity"
    EXPIRED = "expired"
    POSITION_LIMIT = "position_limit"
    VELOCITY_LIMIT = "velocity_limit"
    ACCELERATION_LIMIT = "acceleration_limit"
    JUMP = "jump"
    BAD_ROTATION = "bad_rotation"
    """Six numbers of a pose that are no rotation."""
    WORKSPACE = "workspace"
    """The tool would leave its box."""
    TABLE = "table"
    """Finger tips or links would come too near the table."""
    ORIENTATION = "orientation"
    """The gripper would point upwards."""
    UNREACHABLE = "unreachable"
    """No joint positions within the limits reach a pose."""
    DRIVER_FAULT = "driver_fault"
    """The driver holds on a latched fault and takes no chunk (arm_controller)."""
    NO_STATE = "no_state"
    """The measured joints are unknown, so no chunk can be judged (arm_controller)."""


@dataclass(frozen=True, kw_only=True)
class ChunkFault:
    """A refusal: what to count it under, and one sentence with fact, limit and remedy."""

    code: FaultCode
    message: str


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """How far a chunk may go; seconds, and factors without unit."""

    max_age_s: float = 2.0
    """Oldest observation a chunk may rest on."""
    max_stamp_ahead_s: float = 0.05
    """Clock difference tolerated between the sender and the driver."""
    max_start_behind_s: float = 2.0
    max_start_ahead_s: float = 1.0
    max_valid_ahead_s: float = 30.0
    max_steps: int = 2000
    min_period_s: float = 0.001
    max_period_s: float = 0.5
    position_slack_rad: float = 0.0
    """Rows may leave the position limits by this much; the player keeps the joint inside."""
    position_slack_m: float = 0.001
    """The same for grippers: a learned closing command often lies just below zero."""
    workspace_slack_m: float = 0.003
    """Rows may lead a tool out of its workspace by this much; the player keeps it inside."""
    rotation_slack: float = 0.2
    """How far the two columns of a pose's 6D rotation may be from orthogonal unit vectors."""
    acceleration_factor: float = 3.0
    gripper_speed_factor: float = 10.0
    """Grippers may be asked for this many times their speed, and for any acceleration: learned commands switch within a
    few rows, and the player moves the gripper at its own speed whatever is asked."""
    jump_s: float = 0.1
    """A rotary joint's target may lie as far from the measured position as full speed covers in this time.

    Grippers are left out: a gripper that holds an object stays measured open while it is commanded shut.
    """
