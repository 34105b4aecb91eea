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

__all__ = ["read_image"]

_LITTLE_ENDIAN_CDR = b"\x00\x01"
_HEADER = 4
"""Bytes before the message; alignment counts from there."""


def read_image(data: bytes) -> tuple[NDArray[np.uint8], float]:
    """Return the RGB image of a serialized message, shape (H, W, 3), and its stamp [s].

    An unpadded rgb8 image is a read-only view of `data`; others are converted. Raises ConversionError as
    `image_from_msg` does, also for bytes that are no image.
    """
    found = _rgb8_view(data)
    if found is not None:
        return found
    try:
        msg = deserialize_message(data, Image)
    except Exception as error:  # The type support raises its own kinds.
        raise ConversionError("data", f"{len(data)} bytes are no sensor_msgs/Image: {error!s:.200}") from error
    return image_from_msg(msg), time_from_msg(msg.header.stamp)


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
