# SPDX-License-Identifier: Apache-2.0
"""Read and command a robot inside a MuJoCo model, in RobotSpec order.

The model has one actuator per joint of the spec, named like it; rotary joints have that name too, a gripper of opening
w has
two slide joints `<name>_a` and `<name>_b` at w/2 each, and two pads `<arm>_pad_a` and `<arm>_pad_b`. Units rad, m, Nm,
N.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_port import JointState
from chatvla_control.robot_spec import RobotSpec

__all__ = ["MujocoRobot"]

Array = NDArray[np.float64]


class MujocoRobot:
    """One robot of one model; holds indices only, the state is in the MjData that each call gets."""

    def __init__(self, model: mujoco.MjModel, spec: RobotSpec) -> None:
        self._model, self._spec = model, spec
        grippers = {arm.gripper for arm in spec.arms}
        self._joints = [[f"{n}_a", f"{n}_b"] if n in grippers else [n] for n in spec.joint_names]
        self._qpos = [[int(model.joint(j).qposadr[0]) for j in joints] for joints in self._joints]
        self._qvel = [[int(model.joint(j).dofadr[0]) for j in joints] for joints in self._joints]
        self._actuators = np.array([model.actuator(name).id for name in spec.joint_names])
        self._pads = {
            int(model.geom(f"{arm.name}_pad_{side}").id): (arm.name, side) for arm in spec.arms for side in ("a", "b")
        }
        roots = {model.body(f"{arm.name}_base").id for arm in spec.arms}
        self._bodies = {b for b in range(model.nbody) if int(model.body_rootid[b]) in roots}

    def place(self, data: mujoco.MjData, positions: Array) -> None:
        """Put the joints at `positions`, at rest, at once. For construction only."""
        for addresses, velocities, value in zip(self._qpos, self._qvel, positions, strict=True):
            data.qpos[addresses] = value / len(addresses)
            data.qvel[velocities] = 0

    def command(self, data: mujoco.MjData, positions: Array) -> None:
        """Set the servos' targets, shape (D,), cut to limits. Raises ValueError for a wrong shape or NaN."""
        positions = np.asarray(positions, dtype=np.float64)
        if positions.shape != (self._spec.width,) or not np.isfinite(positions).all():
            raise ValueError(
                f"command for {self._spec.name} must be {self._spec.width} finite numbers, got {positions}"
            )
        data.ctrl[self._actuators] = np.clip(positions, self._spec.lower, self._spec.upper)

    def state(self, data: mujoco.MjData) -> JointState:
        """Return positions, velocities and efforts, stamped with simulated time."""
        return JointState(
            positions=np.array([data.qpos[a].sum() for a in self._qpos]),
            velocities=np.array([data.qvel[a].sum() for a in self._qvel]),
            efforts=data.actuator_force[self._actuators].copy(),
            stamp_s=float(data.time),
        )

    def pad_contacts(self, data: mujoco.MjData) -> dict[int, set[tuple[str, str]]]:
        """Return, for each body that a pad touches, which pads: (arm, side)."""
        touches: dict[int, set[tuple[str, str]]] = {}
        for geom_1, geom_2 in data.contact.geom:
            for pad, other in ((geom_1, geom_2), (geom_2, geom_1)):
                if int(pad) in self._pads:
                    touches.setdefault(int(self._model.geom_bodyid[other]), set()).add(self._pads[int(pad)])
        return touches

    def is_gripped(self, pads: set[tuple[str, str]]) -> bool:
        """Return whether both pads of one arm are among `pads`."""
        return any({(arm.name, "a"), (arm.name, "b")} <= pads for arm in self._spec.arms)

    def touches_body(self, data: mujoco.MjData, body: int) -> bool:
        """Return whether any part of the robot touches `body`."""
        for geoms in data.contact.geom:
            bodies = {int(self._model.geom_bodyid[geom]) for geom in geoms}
            if body in bodies and bodies & self._bodies:
                return True
        return False
