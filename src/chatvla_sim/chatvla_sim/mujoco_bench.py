# SPDX-License-Identifier: Apache-2.0
"""What every bench on MuJoCo does alike: hold a model and its state, step it, read it, free it. No ROS."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_port import JointState
from chatvla_sim.bench import Bench, BenchError
from chatvla_sim.camera import PinholeCamera
from chatvla_sim.mujoco_robot import MujocoRobot
from chatvla_sim.rendering import SceneRenderer, SceneViewer

__all__ = ["MujocoBench"]


class MujocoBench(Bench):
    """A bench whose arms start at home. A subclass sets `spec`, calls `__init__`, and builds and judges the scenes."""

    time_step_s: float
    """Physics step."""

    def __init__(self, model: mujoco.MjModel, camera: PinholeCamera, *, width: int, height: int) -> None:
        """Stand at home in `model`; pictures are `width` x `height` px."""
        self._size = (width, height)
        self._camera = camera
        self._renderer: SceneRenderer | None = None
        self._viewer: SceneViewer | None = None
        self._count = 0
        self._use(model)
        self._robot.place(self._data, np.array(self.spec.home))
        self._robot.command(self._data, np.array(self.spec.home))
        mujoco.mj_forward(self._model, self._data)

    def _use(self, model: mujoco.MjModel) -> None:
        """Take `model` as the present one, its state as the model has it."""
        self._model, self._data = model, mujoco.MjData(model)
        self._view_data = mujoco.MjData(model)
        self._robot = MujocoRobot(model, self.spec)

    @property
    def model(self) -> mujoco.MjModel:
        """The MuJoCo model of the present scene, for viewers and tests."""
        return self._model

    @property
    def data(self) -> mujoco.MjData:
        """The MuJoCo state of the present scene, for viewers and tests."""
        return self._data

    @property
    def time_s(self) -> float:
        """Simulated time since construction."""
        return float(self._data.time)

    def command(self, positions: NDArray[np.float64]) -> None:
        """Set the servos' targets; see Bench.command."""
        self._robot.command(self._data, positions)

    def step(self, duration_s: float) -> None:
        """Advance simulated time."""
        steps = max(0, round(duration_s / self.time_step_s))
        if steps:
            mujoco.mj_step(self._model, self._data, steps)

    def joint_state(self) -> JointState:
        """Return the measured joints."""
        return self._robot.state(self._data)

    def snapshot(self) -> NDArray[np.float64]:
        """Return the generalised positions now."""
        return self._data.qpos.copy()

    def camera(self, view: str) -> PinholeCamera:
        """Return the camera of one view."""
        if view not in self.views:
            raise BenchError(f"no view {view!r}; {self.name} has: {', '.join(self.views)}")
        return self._camera

    def close_renderer(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def close(self) -> None:
        """Free everything."""
        self.close_renderer()
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None
