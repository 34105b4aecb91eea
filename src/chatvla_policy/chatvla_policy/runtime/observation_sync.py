# SPDX-License-Identifier: Apache-2.0
"""Bring camera images and joint states to one time, in bounded memory; notice inputs that cannot be trusted.

Units: rad, m, s. Shapes: H, W image; D joints. Times `now_s` and stamps are of one clock, passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_port import JointState
from chatvla_control.contracts import Observation
from chatvla_control.robot_spec import RobotSpec

__all__ = ["InputFault", "InputKind", "ObservationSync", "SyncSettings"]

KEPT_IMAGES = 4
KEPT_OF_SEVERAL = 16
"""Images kept of each of several views: one that arrives later than another is brought together with older ones."""
KEPT_JOINTS = 100
_MOVED_RAD = 0.3


class InputKind(StrEnum):
    """Which input is at fault."""

    CAMERA = "camera"
    JOINTS = "joint_states"


@dataclass(frozen=True, kw_only=True)
class InputFault:
    """Why nothing can be observed now: fact, limit, remedy in one sentence."""

    kind: InputKind
    message: str


@dataclass(frozen=True, kw_only=True)
class SyncSettings:
    """What may be taken together, and for how long; seconds."""

    slop_s: float = 0.05
    """Largest distance in time between the parts of one observation."""
    max_age_s: float = 0.5
    """Older inputs count as missing."""
    max_ahead_s: float = 0.1
    """Stamps further in the future than this show clocks that differ."""
    frozen_after_s: float = 2.0
    """A picture that stays the same to the last bit this long while the robot moves is frozen; 0 switches this off."""


@dataclass(frozen=True)
class _Frame:
    image: NDArray[np.uint8]
    stamp_s: float


class _Camera:
    """The newest images of one view and what speaks against them."""

    def __init__(self, view: str, size: tuple[int, int] | None, *, kept: int) -> None:
        self.view, self.size = view, size
        self.frames: deque[_Frame] = deque(maxlen=kept)
        self.refusal = ""
        self.same_since_s = 0.0
        self.same_from: NDArray[np.float64] | None = None

    def nearest(self, stamp_s: float) -> _Frame:
        return min(self.frames, key=lambda frame: abs(frame.stamp_s - stamp_s))


class ObservationSync:
    """Latest of each: views named `cameras` and the joints of `spec`."""

    def __init__(
        self,
        spec: RobotSpec,
        cameras: Sequence[str],
        *,
        settings: SyncSettings | None = None,
        sizes: dict[str, tuple[int, int]] | None = None,
    ) -> None:
        """`sizes` gives the expected (height, width) [pixels] per view; a view without one keeps its first size."""
        self._spec = spec
        self._settings = settings or SyncSettings()
        kept = KEPT_IMAGES if len(cameras) == 1 else KEPT_OF_SEVERAL
        self._cameras = {view: _Camera(view, (sizes or {}).get(view), kept=kept) for view in cameras}
        self._apart_since_s: float | None = None
        self._joints: deque[JointState] = deque(maxlen=KEPT_JOINTS)
        self._joints_refusal = ""

    def add_image(self, view: str, image: NDArray[np.uint8], stamp_s: float) -> None:
        """Take one RGB image, shape (H, W, 3); it is kept, not copied. Raises KeyError for an unknown view."""
        camera = self._cameras[view]
        size = (image.shape[0], image.shape[1])
        if camera.size is None:
            camera.size = size
        if size != camera.size:
            camera.refusal = (
                f"camera {view} sends {size[1]}x{size[0]} pixels, expected {camera.size[1]}x{camera.size[0]}; "
                "set the camera's profile back"
            )
            return
        camera.refusal = ""
        last = camera.frames[-1] if camera.frames else None
        if last is not None and stamp_s < last.stamp_s:
            camera.frames.clear()
            last = None
        if last is None or not _same(last.image, image):
            camera.same_since_s, camera.same_from = stamp_s, self._newest_positions()
        elif camera.same_from is None:
            camera.same_from = self._newest_positions()
        if last is not None and stamp_s == last.stamp_s:
            camera.frames.pop()
        camera.frames.append(_Frame(image, stamp_s))
        while len(camera.frames) > KEPT_IMAGES and camera.frames[0].stamp_s < stamp_s - self._settings.max_age_s:
            camera.frames.popleft()

    def refuse_image(self, view: str, message: str) -> None:
        """Note that an image of `view` could not be read; stands until a good one comes."""
        self._cameras[view].refusal = f"camera {view}: {message}"

    def add_joints(self, state: JointState) -> None:
        """Take one measurement; one that is older than the last starts the history anew."""
        if not np.isfinite(state.positions).all():
            joint = self._spec.joint_names[int(np.argmin(np.isfinite(state.positions)))]
            self._joints_refusal = f"joint_states: the position of {joint} is not a finite number; check the driver"
            return
        self._joints_refusal = ""
        if self._joints and state.stamp_s <= self._joints[-1].stamp_s:
            self._joints.clear()
        self._joints.append(state)

    def refuse_joints(self, message: str) -> None:
        """Note that joint states could not be read; stands until good ones come."""
        self._joints_refusal = f"joint_states: {message}"

    def positions(self) -> NDArray[np.float64] | None:
        """Return the newest measured positions [rad, m], shape (D,); None before the first."""
        return self._newest_positions()

    def latest_images(self) -> dict[str, NDArray[np.uint8]]:
        """Return the newest image of every view that has one."""
        return {view: camera.frames[-1].image for view, camera in self._cameras.items() if camera.frames}

    def newest_stamp_s(self) -> float | None:
        """Return the time of the newest complete set of images: the oldest of the views' newest; None before."""
        if not all(camera.frames for camera in self._cameras.values()):
            return None
        return min(camera.frames[-1].stamp_s for camera in self._cameras.values())

    def fault(self, now_s: float) -> InputFault | None:
        """Return what keeps an observation from being made at `now_s`, or None."""
        return (
            self._joint_fault(now_s)
            or next((fault for camera in self._cameras.values() if (fault := self._camera_fault(camera, now_s))), None)
            or self._lasting(self._parts(), now_s)
        )

    def observe(self, instruction: str, now_s: float) -> Observation | None:
        """Return one observation of the newest parts, or None when a part is missing, old or too far from the rest.

        Its time is that of the oldest of the views' newest images; joints are brought to that time.
        """
        if self.fault(now_s) is not None:
            return None
        parts = self._parts()
        if isinstance(parts, InputFault):
            return None
        frames, positions, stamp_s = parts
        return Observation(
            images={view: frame.image for view, frame in frames.items()},
            image_stamps_s={view: frame.stamp_s for view, frame in frames.items()},
            joint_positions=positions,
            instruction=instruction,
            stamp_s=stamp_s,
        )

    def _parts(self) -> tuple[dict[str, _Frame], NDArray[np.float64], float] | InputFault:
        """Return images and positions of one time, or why there are none; every view must have an image."""
        stamp_s = min(camera.frames[-1].stamp_s for camera in self._cameras.values())
        frames = {view: camera.nearest(stamp_s) for view, camera in self._cameras.items()}
        slop_s = self._settings.slop_s
        view = max(frames, key=lambda view: abs(frames[view].stamp_s - stamp_s))
        apart_s = abs(frames[view].stamp_s - stamp_s)
        if apart_s > slop_s:
            return InputFault(
                kind=InputKind.CAMERA,
                message=f"camera {view} has no image within {slop_s} s of the others' ({apart_s:.3f} s apart); let the "
                "cameras take their images together, or raise the parameter slop_s",
            )
        positions = self._positions_at(stamp_s)
        if positions is None:
            apart_s = min(abs(state.stamp_s - stamp_s) for state in self._joints)
            return InputFault(
                kind=InputKind.JOINTS,
                message=f"joint_states has nothing within {slop_s} s of the newest image ({apart_s:.3f} s apart); "
                "check the clocks of camera and driver, or raise the parameter slop_s",
            )
        return frames, positions, stamp_s

    def _lasting(self, parts: object, now_s: float) -> InputFault | None:
        """Return the fault of inputs that do not fit together, once that has lasted max_age_s: single ones may miss."""
        if not isinstance(parts, InputFault):
            self._apart_since_s = None
            return None
        if self._apart_since_s is None or now_s < self._apart_since_s:
            self._apart_since_s = now_s
        return parts if now_s - self._apart_since_s > self._settings.max_age_s else None

    def _newest_positions(self) -> NDArray[np.float64] | None:
        return self._joints[-1].positions if self._joints else None

    def _positions_at(self, stamp_s: float) -> NDArray[np.float64] | None:
        """Return positions at `stamp_s`: between two measurements linear, after the last one by its speed."""
        first = after = None
        for state in reversed(self._joints):
            if state.stamp_s <= stamp_s:
                first = state
                break
            after = state
        slop_s = self._settings.slop_s
        if first is None:
            return after.positions if after is not None and after.stamp_s - stamp_s <= slop_s else None
        if after is not None:
            share = (stamp_s - first.stamp_s) / (after.stamp_s - first.stamp_s)
            return first.positions + share * (after.positions - first.positions)
        ahead_s = stamp_s - first.stamp_s
        if ahead_s > slop_s:
            return None
        if ahead_s == 0.0:
            return first.positions
        speed = np.where(np.isfinite(first.velocities), first.velocities, 0.0)
        return np.clip(first.positions + ahead_s * speed, self._spec.lower, self._spec.upper)

    def _joint_fault(self, now_s: float) -> InputFault | None:
        if self._joints_refusal:
            return InputFault(kind=InputKind.JOINTS, message=self._joints_refusal)
        if not self._joints:
            return InputFault(kind=InputKind.JOINTS, message="joint_states has sent nothing; is the driver running?")
        return self._time_fault(InputKind.JOINTS, "joint_states", now_s - self._joints[-1].stamp_s)

    def _camera_fault(self, camera: _Camera, now_s: float) -> InputFault | None:
        if camera.refusal:
            return InputFault(kind=InputKind.CAMERA, message=camera.refusal)
        name = f"camera {camera.view}"
        if not camera.frames:
            return InputFault(kind=InputKind.CAMERA, message=f"{name} has sent nothing; is it running?")
        stamp_s = camera.frames[-1].stamp_s
        late = self._time_fault(InputKind.CAMERA, name, now_s - stamp_s)
        if late is not None:
            return late
        same_s, limit_s = stamp_s - camera.same_since_s, self._settings.frozen_after_s
        newest = self._newest_positions()
        if not limit_s or same_s <= limit_s or camera.same_from is None or newest is None:
            return None
        moved = float(np.abs((newest - camera.same_from) * self._spec.rotary).max())
        if moved <= _MOVED_RAD:
            return None
        return InputFault(
            kind=InputKind.CAMERA,
            message=f"{name} is frozen: the same picture for {same_s:.1f} s while a joint moved {moved:.2f} rad",
        )

    def _time_fault(self, kind: InputKind, name: str, age_s: float) -> InputFault | None:
        """Return the fault of an input whose newest stamp lies `age_s` back."""
        settings = self._settings
        if age_s > settings.max_age_s:
            return InputFault(kind=kind, message=f"{name} is {age_s:.2f} s old, limit {settings.max_age_s} s")
        if age_s < -settings.max_ahead_s:
            return InputFault(
                kind=kind,
                message=f"{name} is stamped {-age_s:.2f} s in the future, limit {settings.max_ahead_s} s; "
                "check the clocks",
            )
        return None


def _same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Return whether two images of one size are equal to the last bit; most differ in the row seen first."""
    middle = len(one) // 2
    return one[middle].tobytes() == other[middle].tobytes() and np.array_equal(one, other)
