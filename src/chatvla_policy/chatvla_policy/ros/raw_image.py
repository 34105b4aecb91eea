# SPDX-License-Identifier: Apache-2.0
"""Read a serialized sensor_msgs/Image without copying its pixels: what the usual image is, read where it lies.

rclpy's own way copies an image three times (into C, into Python, into an array). H, W pixels.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from chatvla_control.ros.convert import ConversionError
from chatvla_control.ros.images import image_from_msg
from chatvla_control.ros.stamps import time_from_msg
from chatvla_policy.runtime.view_window import Window

__all__ = ["read_image"]

_LITTLE_ENDIAN_CDR = b"\x00\x01"
_HEADER = 4
"""Bytes before the message; alignment counts from there."""
_PIXEL_BYTES = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


def read_image(data: bytes, window: Window | None = None) -> tuple[NDArray[np.uint8], float]:
    """Return the RGB image of a serialized message, shape (H, W, 3), or its part in `window`, and its stamp [s].

    An unpadded rgb8 image of which nothing is cut is a read-only view of `data`; others are converted. Raises
    ConversionError as `image_from_msg` does, also for bytes that are no image, and for a size that is not the window's.
    """
    found = _rgb8_view(data)
    if found is not None:
        _check_size(found[0].shape[0], found[0].shape[1], window)
        return (found[0] if window is None else window.cut(found[0])), found[1]
    try:
        msg = deserialize_message(data, Image)
    except Exception as error:  # The type support raises its own kinds.
        raise ConversionError("data", f"{len(data)} bytes are no sensor_msgs/Image: {error!s:.200}") from error
    _check_size(int(msg.height), int(msg.width), window)
    return _converted(msg, window), time_from_msg(msg.header.stamp)


def _check_size(height: int, width: int, window: Window | None) -> None:
    if window is not None and not window.whole and (height, width) != window.source:
        raise ConversionError(
            "height",
            f"image is {width}x{height} pixels, expected {window.source[1]}x{window.source[0]}, of which the middle is "
            "taken; set the camera's profile back",
        )


def _converted(msg: Image, window: Window | None) -> NDArray[np.uint8]:
    """Return the RGB image of `msg`, or its part in `window`; of the usual encodings only that part is converted."""
    if window is None or window.whole:
        return image_from_msg(msg)
    step, pixel = int(msg.step), _PIXEL_BYTES.get(msg.encoding, 0)
    row = int(msg.width) * pixel
    if not pixel or step < row or len(msg.data) < step * (int(msg.height) - 1) + row:
        # Another encoding, or the usual conversion says what is wrong.
        return window.cut(image_from_msg(msg))
    begin = step * window.top + pixel * window.left
    msg.data = msg.data[begin : begin + step * window.size[0]]
    msg.height, msg.width = window.size
    return image_from_msg(msg)


def _rgb8_view(data: bytes) -> tuple[NDArray[np.uint8], float] | None:
    """Return what `read_image` does, or None when the message is not exactly an unpadded little-endian rgb8 image."""
    try:
        if data[:2] != _LITTLE_ENDIAN_CDR:
            return None
        second, nanosecond, length = struct.unpack_from("<iII", data, _HEADER)
        place = _aligned(_HEADER + 12 + length)
        height, width, length = struct.unpack_from("<III", data, place)
        if length != 5 or data[place + 12 : place + 16] != b"rgb8" or nanosecond >= 1_000_000_000:
            return None
        # The encoding's closing zero and is_bigendian fill two of the four bytes before the step.
        step, size = struct.unpack_from("<II", data, place + 20)
    except struct.error:
        return None
    begin = place + 28
    if not height or not width or step != 3 * width or size != step * height or len(data) < begin + size:
        return None
    pixels = np.frombuffer(data, np.uint8, size, begin).reshape(height, width, 3)
    return pixels, float(second) + 1e-9 * float(nanosecond)


def _aligned(place: int) -> int:
    return place + (_HEADER - place) % 4
