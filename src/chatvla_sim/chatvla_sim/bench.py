# SPDX-License-Identifier: Apache-2.0
"""Say what a simulated bench is: a robot, cameras, a scene drawn from split and seed, and its truth. No ROS.

A bench has no clock of its own but simulated time: `step` advances it, nothing else does.
Only objects are rebuilt by `reset`; arms stay where they are, as on a real table. The first scene has them at home.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_port import JointState
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.scene import SceneTruth
from chatvla_sim.camera import PinholeCamera

__all__ = ["Bench", "BenchError", "CameraStream"]


class BenchError(ValueError):
    """The bench cannot do what was asked; the message says what there is instead."""


@dataclass(frozen=True, kw_only=True)
class CameraStream:
    """How the driver of a view's real camera publishes: relative topics, frame, encoding."""

    image_topic: str
    info_topic: str
    frame_id: str
    encoding: str


class Bench(ABC):
    """One simulated bench. Deterministic: the same calls give the same states and images.

    Not thread-safe, but for `render`.
    """

    name: str
    """Task name, such as "math_match"."""
    spec: RobotSpec
    cameras: tuple[str, ...]
    """Names of the cameras that exist."""
    views: tuple[str, ...]
    """Those that are shown to policies, in their order; `use_views` chooses others."""
    splits: tuple[str, ...]
    """Names that `reset` accepts as split."""

    def use_views(self, views: Sequence[str]) -> None:
        """Show these cameras from now on. Raises BenchError, listing the cameras, for one that does not exist."""
        for view in views:
            if view not in self.cameras:
                raise BenchError(f"no view {view!r}; {self.name} has: {', '.join(self.cameras)}")
        self.views = tuple(views) or self.views

    @property
    @abstractmethod
    def time_s(self) -> float:
        """Simulated time since construction; a reset does not turn it back."""

    @abstractmethod
    def reset(
        self, *, split: str, seed: int, swap: bool = False, equation_fonts: Sequence[Path | str] | None = None
    ) -> SceneTruth:
        """Build the scene of one trial and return its truth.

        `swap` permutes the objects' places against the same seed's unswapped scene. `equation_fonts` draws all writing
        with these font files instead of the split's own; benches without writing ignore it.
        Raises BenchError for an unknown split or a bad seed, and MissingHandwritingError when a font is not there.
        """

    @abstractmethod
    def command(self, positions: NDArray[np.float64]) -> None:
        """Set the servos' targets [rad, m], shape (D,), in RobotSpec order; they hold until the next call."""

    @abstractmethod
    def step(self, duration_s: float) -> None:
        """Advance simulated time by `duration_s`, rounded to the physics step."""

    @abstractmethod
    def joint_state(self) -> JointState:
        """Return the measured joints in RobotSpec order, stamped with simulated time."""

    @abstractmethod
    def snapshot(self) -> NDArray[np.float64]:
        """Return what `render` needs to draw this moment later, while the bench goes on."""

    @abstractmethod
    def render(self, view: str, snapshot: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
        """Return the RGB image of one view, shape (240, 320, 3), now or at a snapshot's moment.

        With a snapshot it may run in a thread of its own, while others step the bench: always the same thread, from
        the first picture to `close_renderer`, and never during a `reset`. Raises BenchError for an unknown view.
        """

    @abstractmethod
    def camera(self, view: str) -> PinholeCamera:
        """Return the camera of one view as it stands in this scene. Raises BenchError for an unknown view."""

    def stream(self, view: str) -> CameraStream:
        """Return how a view's pictures are published; camera/<view>/image_raw in rgb8 unless a bench says otherwise."""
        return CameraStream(
            image_topic=f"camera/{view}/image_raw",
            info_topic=f"camera/{view}/camera_info",
            frame_id=f"camera_{view}_optical_frame",
            encoding="rgb8",
        )

    @abstractmethod
    def truth(self) -> SceneTruth:
        """Return the truth of the scene now, for scorers and privileged policies only."""

    @abstractmethod
    def open_viewer(self) -> Callable[[], None]:
        """Open a window onto the scene and return the function that refreshes it, after a reset with the new scene.

        Raises BenchError without a display; so does the returned function when the window cannot follow.
        """

    @abstractmethod
    def close_renderer(self) -> None:
        """Free the renderer, in the thread that renders. A later `render` makes a new one."""

    @abstractmethod
    def close(self) -> None:
        """Free everything. The bench cannot be used afterwards; a second call does nothing."""
