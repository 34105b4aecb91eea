# SPDX-License-Identifier: Apache-2.0
"""Serialized images are read as the usual conversion reads them, in any encoding, and nonsense is refused."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from chatvla_control.ros.convert import ConversionError
from chatvla_control.ros.images import image_from_msg, image_to_msg
from chatvla_policy.ros.raw_image import read_image
from chatvla_policy.runtime.view_window import Window

RGB = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
STAMP_S = 1_700_000_000.25
PART = Window((6, 8), (3, 4), top=2, left=1)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
@pytest.mark.parametrize("frame", ["", "a", "ab", "abc", "camera_top_optical_frame"])
def test_image_is_what_the_message_holds(encoding: str, frame: str) -> None:
    msg = image_to_msg(RGB, STAMP_S, frame, encoding)
    image, stamp_s = read_image(bytes(serialize_message(msg)))
    np.testing.assert_array_equal(image, image_from_msg(msg))
    assert stamp_s == STAMP_S


def test_padded_rows_are_left_out() -> None:
    padded = np.concatenate([RGB.reshape(6, 24), np.zeros((6, 8), np.uint8)], axis=1)
    msg = Image(height=6, width=8, step=32, encoding="rgb8", data=padded.tobytes())
    np.testing.assert_array_equal(read_image(bytes(serialize_message(msg)))[0], RGB)


def test_plain_image_is_not_copied() -> None:
    data = bytes(serialize_message(image_to_msg(RGB, STAMP_S, "camera")))
    assert np.shares_memory(read_image(data)[0], np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
@pytest.mark.parametrize("padding", [0, 5])
def test_part_is_that_of_the_whole_image(encoding: str, padding: int) -> None:
    msg = image_to_msg(RGB, STAMP_S, "camera", encoding)
    rows = np.frombuffer(bytes(msg.data), np.uint8).reshape(6, -1)
    # The last row's padding is left out, as some drivers do.
    padded = np.pad(rows, ((0, 0), (0, padding))).tobytes()
    msg.step, msg.data = rows.shape[1] + padding, padded[: len(padded) - padding]
    data = bytes(serialize_message(msg))
    part, stamp_s = read_image(data, PART)
    np.testing.assert_array_equal(part, read_image(data)[0][2:5, 1:5])
    assert stamp_s == STAMP_S
    lowest = Window((6, 8), (3, 4), top=3, left=4)
    np.testing.assert_array_equal(read_image(data, lowest)[0], read_image(data)[0][3:, 4:])


def test_window_that_cuts_nothing_copies_nothing() -> None:
    data = bytes(serialize_message(image_to_msg(RGB, STAMP_S, "camera")))
    assert np.shares_memory(read_image(data, Window((6, 8), (6, 8)))[0], np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("encoding", ["rgb8", "bgra8"])
def test_image_of_another_size_than_the_windows_is_refused(encoding: str) -> None:
    data = bytes(serialize_message(image_to_msg(RGB[:3, :4].copy(), STAMP_S, "camera", encoding)))
    with pytest.raises(ConversionError, match="4x3 pixels, expected 8x6, of which the middle is taken"):
        read_image(data, PART)


def test_what_is_no_image_is_refused() -> None:
    data = bytes(serialize_message(image_to_msg(RGB, STAMP_S, "camera")))
    for spoilt in (b"", data[:10], data[:60], data[:-1]):
        with pytest.raises(ConversionError):
            read_image(spoilt)
    short = Image(height=6, width=8, step=24, encoding="rgb8", data=RGB.tobytes()[:-30])
    for window in (None, PART):
        with pytest.raises(ConversionError, match="bytes"):
            read_image(bytes(serialize_message(short)), window)
