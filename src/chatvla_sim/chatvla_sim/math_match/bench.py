# SPDX-License-Identifier: Apache-2.0
"""The math-matching bench: MuJoCo physics, camera and truth. No ROS.

Success: the right card rests in the board's slot (see `judge.py` for the tolerances) and no gripper touches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_control.scene import SceneTruth
from chatvla_sim.bench import BenchError
from chatvla_sim.camera import PinholeCamera
from chatvla_sim.math_match.fonts import load_digits
from chatvla_sim.math_match.geometry import MAX_CARDS, TOP_CAMERA, flat_card_pose
from chatvla_sim.math_match.judge import CardState, scene_truth
from chatvla_sim.math_match.scene import TIME_STEP_S, build_model, spare_position
from chatvla_sim.math_match.textures import board_picture, card_picture
from chatvla_sim.math_match.trial import TRIAL_SPLITS, Trial, draw_trial
from chatvla_sim.mujoco_bench import MujocoBench
from chatvla_sim.rendering import SceneRenderer, SceneViewer, set_texture

__all__ = ["MathMatchBench"]

LAMP = 0.4
"""Brightness of the lamp at `Look.light` 1, no unit."""
SPAWN_SHIFTS_M = (0.0, 0.03, -0.03, 0.06, -0.06)


class MathMatchBench(MujocoBench):
    """Two ARX R5 arms, a whiteboard with an equation, 3-5 number cards, one camera above."""

    name = "math_match"
    cameras = views = ("top",)
    splits = TRIAL_SPLITS
    time_step_s = TIME_STEP_S

    def __init__(self, *, robot: str = "arx_r5", width: int = 320, height: int = 240) -> None:
        """Raises BenchError for a robot that this bench is not made for."""
        if robot != "arx_r5":
            raise BenchError(f"math_match is a bench of robot 'arx_r5', not of {robot!r}")
        self.spec: RobotSpec = robot_spec(robot)
        super().__init__(build_model(self.spec), TOP_CAMERA, width=width, height=height)
        self._stale_textures: list[int] = []
        self._stale_in_viewer: list[int] = []
        self._trial: Trial | None = None
        load_digits()

    @property
    def trial(self) -> Trial:
        """The present trial. Raises BenchError before the first reset."""
        if self._trial is None:
            raise BenchError("math_match has no scene yet; call reset first")
        return self._trial

    def reset(
        self, *, split: str, seed: int, swap: bool = False, equation_fonts: Sequence[Path | str] | None = None
    ) -> SceneTruth:
        """Build the scene of one trial; see Bench.reset."""
        fonts = [Path(font) for font in equation_fonts] if equation_fonts else None
        try:
            trial = draw_trial(split=split, seed=seed, swap=swap, fonts=fonts)
        except ValueError as error:
            raise BenchError(str(error)) from error
        return self.show(trial)

    def show(self, trial: Trial, joints: NDArray[np.float64] | None = None) -> SceneTruth:
        """Build the scene of `trial`; with `joints` [rad, m], shape (D,), the arms stand there at once."""
        if joints is not None:
            self._robot.place(self._data, joints)
            self._robot.command(self._data, joints)
        pictures = {"board": board_picture(trial).image}
        pictures |= {f"card_{index}": card_picture(trial, index).image for index in range(len(trial.cards))}
        self._trial = trial
        self._count += 1
        # The renderer's thread takes them to the graphics memory before its next picture.
        self._stale_textures = [set_texture(self._model, name, image) for name, image in pictures.items()]
        self._stale_in_viewer = list(self._stale_textures)
        self._apply_look()
        self._place_cards()
        return self.truth()

    def render(self, view: str, snapshot: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
        """Return the RGB image of one view; see Bench.render."""
        self.camera(view)
        if self._renderer is None:
            self._renderer = SceneRenderer(self._model, width=self._size[0], height=self._size[1])
        elif self._stale_textures:
            self._renderer.upload(self._stale_textures)
        self._stale_textures = []
        self._view_data.qpos[:] = self._data.qpos if snapshot is None else snapshot
        mujoco.mj_kinematics(self._model, self._view_data)
        mujoco.mj_camlight(self._model, self._view_data)
        return self._renderer.draw(self._view_data, view)

    def truth(self) -> SceneTruth:
        """Return the truth of the scene now."""
        # Poses in the data lag one step behind until the kinematics are run again.
        mujoco.mj_kinematics(self._model, self._data)
        return scene_truth(
            self.trial, self._card_states(), camera=self._camera, stamp_s=self.time_s, count=self._count, view="top"
        )

    def open_viewer(self) -> Callable[[], None]:
        """Open a window onto the scene; see Bench.open_viewer."""
        viewer = self._viewer = SceneViewer(self._model, self._data)
        self._stale_in_viewer = []

        def show() -> None:
            # One at a time: each waits for a picture, and the physics wait for this function.
            if self._stale_in_viewer:
                viewer.upload(self._stale_in_viewer.pop(0))
            viewer.sync()

        return show

    def _card_states(self) -> list[CardState]:
        touches = self._robot.pad_contacts(self._data)
        states = []
        for index in range(len(self.trial.cards)):
            body = self._data.body(f"card_{index}")
            velocity = self._data.joint(f"card_{index}").qvel
            pads = touches.get(self._model.body(f"card_{index}").id, set())
            states.append(
                CardState(
                    position=body.xpos.copy(),
                    rotation=body.xmat.reshape(3, 3).copy(),
                    speed_m_s=float(np.linalg.norm(velocity[:3])),
                    held=self._robot.is_gripped(pads),
                    touched=bool(pads),
                )
            )
        return states

    def _apply_look(self) -> None:
        look = self.trial.look
        model = self._model
        model.geom("table").rgba[:3] = look.table
        for index in range(MAX_CARDS):
            used = index < len(self.trial.cards)
            model.geom(f"card_{index}").rgba = (*(0.9 * np.array(look.card)), 1.0 if used else 0.0)
            model.mat(f"card_{index}").rgba = (1, 1, 1, 1.0 if used else 0.0)
        model.light("lamp").diffuse = np.full(3, LAMP * look.light)
        model.light("lamp").dir = np.array(look.light_direction) / np.linalg.norm(look.light_direction)
        self._camera = PinholeCamera(
            position=tuple(np.add(TOP_CAMERA.position, look.camera_shift_m).tolist()),
            target=tuple(np.add(TOP_CAMERA.target, look.camera_turn_m).tolist()),
            fovy_deg=TOP_CAMERA.fovy_deg,
            width=self._size[0],
            height=self._size[1],
        )
        right, down, forward = self._camera.axes
        camera = model.camera("top")
        camera.pos = self._camera.position
        camera.fovy = self._camera.fovy_deg
        mujoco.mju_mat2Quat(camera.quat, np.column_stack([right, -down, -forward]).flatten())

    def _place_cards(self) -> None:
        for index in range(MAX_CARDS):
            joint = self._data.joint(f"card_{index}")
            joint.qvel[:] = 0
            if index >= len(self.trial.cards):
                joint.qpos[:] = (*spare_position(index), 1, 0, 0, 0)
                continue
            card = self.trial.cards[index]
            for shift in SPAWN_SHIFTS_M:
                pose = flat_card_pose(card.x_m + shift, card.y_m, card.yaw_rad)
                quaternion = np.zeros(4)
                mujoco.mju_mat2Quat(quaternion, pose[:3, :3].flatten())
                joint.qpos[:] = (*pose[:3, 3], *quaternion)
                mujoco.mj_forward(self._model, self._data)
                # A card never starts inside an arm that still stands over its place: it is put beside it.
                if not self._robot.touches_body(self._data, self._model.body(f"card_{index}").id):
                    break
        mujoco.mj_forward(self._model, self._data)
