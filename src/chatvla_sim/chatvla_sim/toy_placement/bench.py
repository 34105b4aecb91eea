# SPDX-License-Identifier: Apache-2.0
"""The toy-placement bench: MuJoCo physics, camera and truth. No ROS.

Every scene has a MuJoCo model of its own, since every scene has other objects; the arm's state goes from one to the
next. Success: see judge.py and relations.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_control.scene import SceneTruth
from chatvla_sim.bench import BenchError, CameraStream
from chatvla_sim.camera import PinholeCamera
from chatvla_sim.mujoco_bench import MujocoBench
from chatvla_sim.rendering import SceneRenderer, SceneViewer
from chatvla_sim.toy_placement.judge import ThingState, scene_truth
from chatvla_sim.toy_placement.scene import RIGHT_CAMERA, TIME_STEP_S, build_model, set_camera, trial_camera
from chatvla_sim.toy_placement.trial import TRIAL_SPLITS, Trial, draw_trial

__all__ = ["ToyPlacementBench"]

VIEW = "right"
ZED = CameraStream(
    image_topic="zed/zed_node/rgb/color/rect/image",
    info_topic="zed/zed_node/rgb/color/rect/camera_info",
    frame_id="zed_left_camera_frame_optical",
    encoding="bgra8",
)
"""As zed_wrapper 5.1 and later publish with camera_name `zed`."""
SPAWN_SHIFTS_M = (0.0, 0.03, -0.03, 0.06, -0.06)


class ToyPlacementBench(MujocoBench):
    """One Panda with a parallel gripper, toys, reference objects, sometimes a rack, a camera on the right.

    Cameras on the left and at the wrist are there too, for policies that ask for them.
    """

    name = "toy_placement"
    cameras = (VIEW, "left", "wrist")
    views = (VIEW,)
    splits = TRIAL_SPLITS
    time_step_s = TIME_STEP_S

    def __init__(self, *, robot: str = "franka", width: int = 320, height: int = 240) -> None:
        """Raises BenchError for a robot that this bench is not made for."""
        if robot != "franka":
            raise BenchError(f"toy_placement is a bench of robot 'franka', not of {robot!r}")
        self.spec: RobotSpec = robot_spec(robot)
        super().__init__(build_model(self.spec, None), RIGHT_CAMERA, width=width, height=height)
        self._left_camera = RIGHT_CAMERA
        self._drawn_model: mujoco.MjModel | None = None
        self._trial: Trial | None = None
        self._stood = np.zeros(3)
        """Where the reference's middle was when the trial began."""

    @property
    def trial(self) -> Trial:
        """The present trial. Raises BenchError before the first reset."""
        if self._trial is None:
            raise BenchError("toy_placement has no scene yet; call reset first")
        return self._trial

    def reset(
        self, *, split: str, seed: int, swap: bool = False, equation_fonts: Sequence[Path | str] | None = None
    ) -> SceneTruth:
        """Build the scene of one trial; see Bench.reset. There is no writing: `equation_fonts` changes nothing."""
        try:
            trial = draw_trial(split=split, seed=seed, swap=swap)
        except ValueError as error:
            raise BenchError(str(error)) from error
        return self.show(trial)

    def show(self, trial: Trial, joints: NDArray[np.float64] | None = None) -> SceneTruth:
        """Build the scene of a given trial and return its truth.

        The arm stays where it is; with `joints` [rad, m], shape (D,), it stands there at once.
        """
        before_model, before = self._model, self._data
        self._use(build_model(self.spec, trial))
        self._trial = trial
        self._count += 1
        self._data.time = before.time
        self._data.ctrl[:] = before.ctrl
        for index in range(before_model.njnt):
            # Hinges and slides are the arm's, free joints are things.
            if before_model.jnt_type[index] != mujoco.mjtJoint.mjJNT_FREE:
                name = before_model.joint(index).name
                self._data.joint(name).qpos = before.joint(name).qpos
                self._data.joint(name).qvel = before.joint(name).qvel
        if joints is not None:
            self._robot.place(self._data, joints)
            self._robot.command(self._data, joints)
        self._camera = trial_camera(trial.look, *self._size)
        self._left_camera = trial_camera(trial.look, *self._size, left=True)
        set_camera(self._model, VIEW, self._camera)
        set_camera(self._model, "left", self._left_camera)
        self._make_room()
        self._stood = self._data.body("thing_1").xpos.copy()
        return self.truth()

    def render(self, view: str, snapshot: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
        """Return the RGB image of one view; see Bench.render."""
        self.camera(view)
        if self._renderer is None:
            self._renderer = SceneRenderer(self._model, width=self._size[0], height=self._size[1])
        elif self._drawn_model is not self._model:
            # All scenes have the same textures and no meshes.
            self._renderer.use(self._model)
        self._drawn_model = self._model
        # A snapshot of the scene before a reset has other objects: what stands there now is shown instead.
        fits = snapshot is not None and len(snapshot) == len(self._view_data.qpos)
        self._view_data.qpos[:] = snapshot if fits else self._data.qpos
        mujoco.mj_kinematics(self._model, self._view_data)
        mujoco.mj_camlight(self._model, self._view_data)
        return self._renderer.draw(self._view_data, view)

    def camera(self, view: str) -> PinholeCamera:
        """Return the camera of one view; see Bench.camera. Of the wrist's, place, direction and intrinsics hold now.

        How it is rolled about its direction is not told: an arm turns it, and a PinholeCamera stands upright.
        """
        right = super().camera(view)
        if view != "wrist":
            return self._left_camera if view == "left" else right
        seen = self._data.camera(view)
        forward = -seen.xmat.reshape(3, 3)[:, 2]
        return PinholeCamera(
            position=tuple(seen.xpos.tolist()),
            target=tuple((seen.xpos + forward).tolist()),
            fovy_deg=float(self._model.camera(view).fovy[0]),
            width=self._size[0],
            height=self._size[1],
        )

    def stream(self, view: str) -> CameraStream:
        """Return the ZED driver's topics for the right camera; see Bench.stream."""
        self.camera(view)
        return ZED if view == VIEW else super().stream(view)

    def truth(self) -> SceneTruth:
        """Return the truth of the scene now."""
        # Poses in the data lag one step behind until the kinematics are run again.
        mujoco.mj_kinematics(self._model, self._data)
        return scene_truth(
            self.trial,
            self._states(),
            stood=self._stood,
            camera=self._camera,
            stamp_s=self.time_s,
            count=self._count,
            view=VIEW,
        )

    def open_viewer(self) -> Callable[[], None]:
        """Open a window onto the scene; see Bench.open_viewer."""
        viewer = self._viewer = SceneViewer(self._model, self._data)
        shown = self._model

        def show() -> None:
            nonlocal shown
            if shown is not self._model:
                viewer.use(self._model, self._data)
                shown = self._model
            viewer.sync()

        return show

    def _states(self) -> list[ThingState]:
        touches = self._robot.pad_contacts(self._data)
        states = []
        for index in range(len(self.trial.things)):
            name = f"thing_{index}"
            body = self._data.body(name)
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = body.xmat.reshape(3, 3), body.xpos
            pads = touches.get(self._model.body(name).id, set())
            speed = float(np.linalg.norm(self._data.joint(name).qvel[:3]))
            held = self._robot.is_gripped(pads)
            states.append(ThingState(pose=pose, speed_m_s=speed, held=held, touched=bool(pads)))
        return states

    def _make_room(self) -> None:
        """Move things that would start inside an arm that still stands over their place, beside it."""
        mujoco.mj_forward(self._model, self._data)
        for index in range(len(self.trial.things)):
            joint = self._data.joint(f"thing_{index}")
            start = joint.qpos.copy()
            for shift in SPAWN_SHIFTS_M:
                joint.qpos = start
                joint.qpos[1] += shift
                mujoco.mj_forward(self._model, self._data)
                if not self._robot.touches_body(self._data, self._model.body(f"thing_{index}").id):
                    break
