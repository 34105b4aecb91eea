# SPDX-License-Identifier: Apache-2.0
"""Render a MuJoCo scene off screen, with textures that change at run time.

One SceneRenderer owns one OpenGL context: create, use and close it in one thread.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

__all__ = ["SceneRenderer", "set_texture"]


def set_texture(model: mujoco.MjModel, name: str, image: NDArray[np.uint8]) -> int:
    """Write `image` (H, W, 3) RGB, top row first, into a texture of `model` and return the texture's id.

    The model is changed in place; a renderer shows it after `upload`. Raises ValueError when the size does not fit.
    """
    texture = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXTURE, name)
    height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
    if image.shape != (height, width, 3):
        raise ValueError(f"texture {name!r} takes an image of shape {(height, width, 3)}, got {image.shape}")
    start = int(model.tex_adr[texture])
    model.tex_data[start : start + image.size] = image.reshape(-1)
    return texture


class SceneRenderer:
    """Draws one model at one size."""

    def __init__(self, model: mujoco.MjModel, *, width: int, height: int) -> None:
        """Raises RuntimeError with the remedy when no OpenGL library is there."""
        self._model = model
        try:
            self._renderer: mujoco.Renderer | None = mujoco.Renderer(model, height=height, width=width)
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
