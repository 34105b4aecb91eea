# SPDX-License-Identifier: Apache-2.0
"""Reach a robot's joints: the one interface between control loop and arm, real or simulated. No ROS, no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian_spec import CartesianSpec
from chatvla_control.robot_spec import RobotSpec

__all__ = [
    "OUTSIDE_RAD",
    "ArmPort",
    "ArmPortError",
    "ArmStateMissingError",
    "CommandRefusedError",
    "JointState",
    "hold_pose",
]

OUTSIDE_RAD = 0.1
"""A rotary joint measured this far outside its limits is not moved: leading it back would be one long step."""
_OLD_S = 0.1


class ArmPortError(RuntimeError):
    """The arm could not be reached or refused; the message says what, the limit and the remedy."""


class ArmStateMissingError(ArmPortError):
    """The arm has not reported its joints yet: a reason to wait, not a fault."""


class CommandRefusedError(ArmPortError):
    """One command, or the gripper's part of it, was not taken; the arm is reached, and goes on as told before."""


@dataclass(frozen=True, kw_only=True)
class JointState:
    """Measured joints in RobotSpec order."""

    positions: NDArray[np.float64]
    """rad and m, shape (D,)."""
    velocities: NDArray[np.float64]
    """rad/s and m/s, shape (D,)."""
    efforts: NDArray[np.float64]
    """Nm and N where the arm reports it, else NaN, shape (D,)."""
    stamp_s: float


class ArmPort(ABC):
    """One robot's joints. Calls are made from one thread at the control rate and must return within a period."""

    spec: RobotSpec
    rate_hz: float | None = None
    """How often it wants commands; None: at the robot's rate, that of the chunks."""
    cartesian: CartesianSpec | None = None
    """The cell's own limits of the tools; None: the robot's."""

    @abstractmethod
    def connect(self) -> None:
        """Reach the arm and hold its present pose. Raises ArmPortError."""

    @abstractmethod
    def read(self) -> JointState:
        """Return the newest measured state. Raises ArmStateMissingError before the first, ArmPortError on a fault."""

    @abstractmethod
    def write(self, positions: NDArray[np.float64]) -> None:
        """Command joint positions [rad, m], shape (D,), already checked and limited.

        Raises ArmPortError where the arm is not reached, with every part of it commanded that is, so that it can brake;
        CommandRefusedError where it is reached and does not take this command.
        """

    def move(self, positions: NDArray[np.float64], velocities: NDArray[np.float64]) -> None:
        """Command joint positions and the speeds [rad/s, m/s] at which they are passed, both of shape (D,).

        Ports whose robot fills in between ticks use the speeds; by default they are dropped. Raises ArmPortError.
        """
        self.write(positions)

    @abstractmethod
    def stop(self) -> None:
        """Hold the present pose at once; must work after a fault and without fresh states.

        Without them, and for an arm far outside its limits, nothing is commanded that could move it (see hold_pose).
        """

    @abstractmethod
    def close(self) -> None:
        """Leave the arm in its safe rest mode and free the connection."""


def hold_pose(spec: RobotSpec, state: JointState, now_s: float) -> NDArray[np.float64] | None:
    """Return where to hold the rotary joints of a measured arm [rad], shape (J,); None where that could move it.

    That is when the state is 0.1 s old or older, since the arm may have moved on, not finite, or outside the limits by
    OUTSIDE_RAD; the command from before then stays in force. A pose a little outside is moved to the limit.
    """
    rotary = np.array([joint.unit == "rad" for joint in spec.joints])
    measured, low, high = state.positions[rotary], spec.lower[rotary], spec.upper[rotary]
    if abs(now_s - state.stamp_s) >= _OLD_S or not np.isfinite(measured).all():
        return None
    held = np.clip(measured, low, high)
    return None if np.abs(held - measured).max() > OUTSIDE_RAD else held
