# SPDX-License-Identifier: Apache-2.0
"""Take camera images and joint states in. Images enter here alone, cut, so that whatever looks sees the same part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sensor_msgs.msg import JointState

from chatvla_control.ros.convert import ConversionError, joint_state_from_msg
from chatvla_policy.ros.acting import Acting
from chatvla_policy.ros.raw_image import read_image
from chatvla_policy.runtime.observation_sync import ObservationSync
from chatvla_policy.runtime.view_window import Window

__all__ = ["Observing"]

_YIELD_S = 0.0005


class Observing:
    """Gives what comes to `sync` under the lock of `acting`, and wakes that for an image."""

    def __init__(self, sync: ObservationSync, acting: Acting, joint_names: Sequence[str]) -> None:
        self._sync, self._acting, self._joint_names = sync, acting, tuple(joint_names)

    def of_camera(self, view: str, window: Window) -> Callable[[bytes], None]:
        """Return what takes the serialized images of `view`, of which the part in `window` is kept."""

        def on_image(data: bytes) -> None:
            try:
                image, stamp_s = read_image(data, window)
            except ConversionError as error:
                with self._acting.lock:
                    self._sync.refuse_image(view, str(error))
                return
            with self._acting.lock:
                self._sync.add_image(view, image, stamp_s)
            if self._acting.pump():
                # The inference thread gets the interpreter at once, not when this one next waits.
                time.sleep(_YIELD_S)

        return on_image

    def on_joints(self, msg: JointState) -> None:
        """Take one measurement."""
        with self._acting.lock:
            try:
                self._sync.add_joints(joint_state_from_msg(msg, self._joint_names))
            except ConversionError as error:
                self._sync.refuse_joints(str(error))
