# SPDX-License-Identifier: Apache-2.0
"""Render a MuJoCo scene off screen or show it in a window, with textures that change at run time.

One SceneRenderer owns one OpenGL context: create, use and close it in one thread. A SceneViewer's context is another,
in a thread of MuJoCo's.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from chatvla_sim.bench import BenchError

if TYPE_CHECKING:
    from mujoco.viewer import Handle

__all__ = ["SceneRenderer", "SceneViewer", "set_texture"]

MOST_GEOMS = 2000
"""Shapes that a picture may hold."""
CLOSE_TIMEOUT_S = 2.0


def set_texture(model: mujoco.MjModel, name: str, image: NDArray[np.uint8]) -> int:
    """Write `image` (H, W, 3) RGB, top row first, into a texture of `model` and return the texture's id.

    The model is changed in place; a renderer and a viewer show it after `upload`. Raises ValueError when the size does
    not fit.
    """
    texture = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXTURE, name)
    height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
    if image.shape != (height, width, 3):
        raise ValueError(f"texture {name!r} takes an image of shape {(height, width, 3)}, got {image.shape}")
    start = int(model.tex_adr[texture])
    model.tex_data[start : start + image.size] = image.reshape(-1)
    return texture


class SceneViewer:
    """MuJoCo's window onto one scene at a time. After a person has closed it, every call does nothing."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Open the window. Raises BenchError without a display."""
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise BenchError(
                "there is no display: DISPLAY and WAYLAND_DISPLAY are empty; look at camera/top/image_raw instead"
            )
        try:
            import mujoco.viewer

            self._handle: Handle = mujoco.viewer.launch_passive(model, data, show_left_ui=False, show_right_ui=False)
        except Exception as error:  # glfw and its libraries fail in many ways.
            raise BenchError(
                f"the viewer cannot open: {error}; it needs the package glfw and a display with OpenGL"
            ) from error

    def sync(self) -> None:
        """Show the present state; to be called between steps."""
        self._handle.sync()

    def upload(self, texture: int) -> None:
        """Show the present data of a texture. Waits for the window's next picture."""
        self._handle.update_texture(texture)

    def use(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Show another scene in the same window. Raises BenchError when MuJoCo cannot."""
        try:
            # MuJoCo's Handle has no public way to change its model.
            simulate = self._handle._get_sim()
            if simulate is not None:
                simulate.load(model, data, "")
        except Exception as error:  # As in opening.
            raise BenchError(f"the viewer cannot show the next scene: {error}; start again for a new window") from error

    def close(self) -> None:
        """Close the window; a second call does nothing."""
        self._handle.close()
        # MuJoCo's thread frees the window after that; an interpreter that ends meanwhile crashes.
        end_s = time.monotonic() + CLOSE_TIMEOUT_S
        while self._handle.m is not None and time.monotonic() < end_s:
            time.sleep(0.01)


class SceneRenderer:
    """Draws one model at one size."""

    def __init__(self, model: mujoco.MjModel, *, width: int, height: int) -> None:
        """Raises RuntimeError with the remedy when no OpenGL library is there."""
        self._model = model
        try:
            self._renderer: mujoco.Renderer | None = mujoco.Renderer(
                model, height=height, width=width, max_geom=MOST_GEOMS
            )
        except Exception as error:  # The OpenGL loaders raise many kinds: AttributeError, ImportError, RuntimeError.
            raise RuntimeError(
                f"cannot render off screen: {error}. Set MUJOCO_GL=osmesa and install libosmesa6, "
                "or MUJOCO_GL=egl and install libegl1 libopengl0 libgl1"
            ) from error

    def upload(self, textures: list[int]) -> None:
        """Show the present data of these textures."""
        renderer = self._open()
        context = renderer._gl_context  # MuJoCo's Renderer has no public way to make its context current.
        if context is not None:
            context.make_current()
        for texture in textures:
            mujoco.mjr_uploadTexture(self._model, renderer._mjr_context, texture)

    def use(self, model: mujoco.MjModel) -> None:
        """Draw `model` from now on, in the same OpenGL context: a new one takes ten times as long as a picture.

        It must have the textures and meshes of the model that the renderer was made with.
        """
        renderer = self._open()
        # MuJoCo's Renderer has no public way to change its model.
        self._model = renderer._model = model
        renderer._scene = mujoco.MjvScene(model=model, maxgeom=MOST_GEOMS)

    def draw(self, data: mujoco.MjData, camera: str | mujoco.MjvCamera) -> NDArray[np.uint8]:
        """Return the RGB image, shape (H, W, 3)."""
        renderer = self._open()
        renderer.update_scene(data, camera)
        return renderer.render()

    def close(self) -> None:
        """Free the OpenGL context; a second call does nothing."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _open(self) -> mujoco.Renderer:
        if self._renderer is None:
            raise RuntimeError("the renderer is closed")
        return self._renderer
