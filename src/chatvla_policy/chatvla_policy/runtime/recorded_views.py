# SPDX-License-Identifier: Apache-2.0
"""Cut the images of a bag as the policy node cuts those that come: bags hold whole images. No ROS.

The node notes nowhere what it cut; whoever reads the bag says the angle again (`view_height_deg`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatvla_policy.runtime.view_window import SAME_SHAPE, Lens, Window, WindowError, central_window

__all__ = ["RecordedViews", "SizeChangedError", "recorded_lenses"]


class SizeChangedError(ValueError):
    """An image has not the size of those before it, of which a part is taken."""


def recorded_lenses(reader: Any, prefix: str, views: Iterable[str]) -> dict[str, Lens]:
    """Return the lens of each of `views` by its first camera_info under `prefix`; what sent none is missing.

    `reader` is an open rosbags.highlevel.AnyReader.
    """
    wanted = {f"{prefix}camera/{view}/camera_info": view for view in views}
    chosen = [connection for connection in reader.connections if connection.topic in wanted]
    lenses: dict[str, Lens] = {}
    for connection, _, raw in reader.messages(connections=chosen) if chosen else ():
        view = wanted[connection.topic]
        if view not in lenses:
            info = reader.deserialize(raw, connection.msgtype)
            lenses[view] = Lens((int(info.height), int(info.width)), float(info.k[4]))
            if len(lenses) == len(wanted):
                break
    return lenses


class RecordedViews:
    """Takes of each view what its first image and the lens say."""

    def __init__(self, heights_deg: Mapping[str, float], model_size: tuple[int, int] | None) -> None:
        """Take the middle, as high as `heights_deg` says of a view; 0 or nothing: as high as the camera's.

        Where the camera's shape is not that of `model_size` (height, width), take the model's; None leaves it.
        """
        self.heights_deg = dict(heights_deg)
        self.lenses: dict[str, Lens] = {}
        self._model_size = model_size
        self._windows: dict[str, Window] = {}

    def cut(self, view: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what is taken of `image`, shape (H, W, 3): itself when nothing is cut.

        Raises WindowError when the view's first image cannot be what the model saw, and SizeChangedError for a later
        one of another size, of which nothing can be taken.
        """
        size = (image.shape[0], image.shape[1])
        window = self._windows.get(view)
        if window is None:
            window = self._windows[view] = self._window(view, size)
        if not window.whole and size != window.source:
            raise SizeChangedError(f"height: image is {size[1]}x{size[0]} pixels, the first was another size")
        return window.cut(image)

    def _window(self, view: str, size: tuple[int, int]) -> Window:
        height_deg, model = self.heights_deg.get(view, 0.0), self._model_size
        if not height_deg and (model is None or abs(size[1] * model[0] / (size[0] * model[1]) - 1.0) <= SAME_SHAPE):
            # Of which nothing is cut: small pictures, too, which the node would not drive by.
            return Window(size, size)
        try:
            return central_window(size, model_size=model, height_deg=height_deg, lens=self.lenses.get(view))
        except WindowError as error:
            raise WindowError(f"camera/{view}/image_raw holds {size[1]}x{size[0]} pixels, {error}") from error

    def taken(self) -> dict[str, str]:
        """Return what is taken of each view of which something is cut."""
        return {
            view: f"the middle {window.size[1]}x{window.size[0]} of {window.source[1]}x{window.source[0]} pixels"
            for view, window in self._windows.items()
            if not window.whole
        }
