# SPDX-License-Identifier: Apache-2.0
"""Choose how MuJoCo draws off screen, before it is imported: in software (OSMesa) or by EGL, whichever is installed."""

from __future__ import annotations

import ctypes.util
import os

__all__ = ["choose_opengl"]

_LIBRARIES = {"osmesa": "OSMesa", "egl": "EGL"}


def choose_opengl() -> None:
    """Set MUJOCO_GL for this process and its children unless it is set; without a library leave it to the renderer."""
    for backend, library in _LIBRARIES.items():
        if "MUJOCO_GL" not in os.environ and ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = backend
