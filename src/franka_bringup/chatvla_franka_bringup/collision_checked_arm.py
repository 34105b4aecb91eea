# SPDX-License-Identifier: Apache-2.0
"""Refuse commands that would end in a collision: a port in front of another port."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_port import ArmPort, CommandRefusedError, JointState

__all__ = ["CollisionCheckedArm", "CollisionScene"]

Array = NDArray[np.float64]


class CollisionScene(Protocol):
    """What is around the robot, such as MoveIt's planning scene."""

    def connect(self) -> None:
        """Load the scene. Raises ArmPortError."""
        ...

    def collides(self, arm_positions: Array) -> bool:
        """Return whether the arm at these joint positions [rad], shape (J,), touches itself or the scene."""
        ...

    def close(self) -> None:
        """Free the scene."""
        ...


class CollisionCheckedArm(ArmPort):
    """Passes a command on when neither its pose nor the pose where the arm can stop collides."""

    def __init__(self, port: ArmPort, scene: CollisionScene) -> None:
        self.spec, self.rate_hz, self.cartesian = port.spec, port.rate_hz, port.cartesian
        self._port, self._scene = port, scene
        self._rotary = np.array([joint.unit == "rad" for joint in port.spec.joints])

    def connect(self) -> None:
        """Connect the port and load the scene."""
        self._port.connect()
        self._scene.connect()

    def read(self) -> JointState:
        """Return the port's state."""
        return self._port.read()

    def write(self, positions: Array) -> None:
        """Pass positions on. Raises CommandRefusedError when they collide."""
        self.move(positions, np.zeros_like(positions))

    def move(self, positions: Array, velocities: Array) -> None:
        """Pass a command on. Raises CommandRefusedError, which latches a fault, when it leads into a collision.

        The arm then goes on to the rest that the command before led to, which was checked.
        """
        arm = self._rotary
        stop_s = float((np.abs(velocities[arm]) / self.spec.acceleration[arm]).max())
        stop = positions[arm] + 0.5 * stop_s * velocities[arm]
        for what, pose in (("the commanded pose", positions[arm]), ("the pose where the arm can stop", stop)):
            if self._scene.collides(pose):
                raise CommandRefusedError(
                    f"{what} collides: {np.round(pose, 3).tolist()} rad; look at the planning scene, move the arm free "
                    "by hand, then call driver/clear_fault"
                )
        self._port.move(positions, velocities)

    def stop(self) -> None:
        """Hold, without asking the scene: it must work after a fault."""
        self._port.stop()

    def close(self) -> None:
        """Close the port and free the scene."""
        self._port.close()
        self._scene.close()
