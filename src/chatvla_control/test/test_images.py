# SPDX-License-Identifier: Apache-2.0
"""Images keep their colours whatever encoding, row padding and byte order they come in."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from sensor_msgs.msg import Image

from chatvla_control.ros.convert import ConversionError, depth_from_msg, depth_to_msg, image_from_msg, image_to_msg

RGB = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
GREY = np.repeat(RGB[..., :1], 3, axis=2)


def padded(msg: Image, extra: int, last_row: bool = True) -> Image:
    rows = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)
    data = np.pad(rows, ((0, 0), (0, extra)), constant_values=99).tobytes()
    msg.step += extra
    msg.data = data if last_row else data[:-extra]
    return msg


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
@pytest.mark.parametrize("extra", [0, 5])
def test_colour_image_survives(encoding: str, extra: int) -> None:
    msg = padded(image_to_msg(RGB, 1.5, "camera", encoding), extra)
    image = image_from_msg(msg)
    assert np.array_equal(image, RGB)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert msg.header.frame_id == "camera"


def test_grey_image_survives() -> None:
    assert np.array_equal(image_from_msg(image_to_msg(GREY, 0.0, "c", "mono8")), GREY)


def test_last_row_may_lack_its_padding() -> None:
    assert np.array_equal(image_from_msg(padded(image_to_msg(RGB, 0.0, "c"), 7, last_row=False)), RGB)


def test_padding_that_is_not_there_takes_no_memory() -> None:
    image = Image(height=1, width=1, encoding="rgb8", step=60_000_000, data=bytes([1, 2, 3]))
    depth = Image(height=1, width=1, encoding="16UC1", step=60_000_000, data=bytes([232, 3]))
    tracemalloc.start()
    try:
        assert image_from_msg(image).tolist() == [[[1, 2, 3]]]
        assert depth_from_msg(depth).tolist() == [[1.0]]
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bigendian", [0, 1])
@pytest.mark.parametrize("extra", [0, 6])
def test_depth_survives_in_both_byte_orders(bigendian: int, extra: int) -> None:
    order = ">" if bigendian else "<"
    metres = np.random.default_rng(1).uniform(0.2, 5.0, (9, 11)).astype(np.float32)
    for depth, want, atol in ((metres, metres, 0.0), ((metres * 1000).astype(np.uint16), metres, 0.0011)):
        msg = depth_to_msg(depth, 0.0, "c")
        msg.data = depth.astype(depth.dtype.newbyteorder(order)).tobytes()
        msg.is_bigendian = bigendian
        assert np.allclose(depth_from_msg(padded(msg, extra)), want, atol=atol)


def test_depth_without_measurement_is_nan() -> None:
    assert np.isnan(depth_from_msg(depth_to_msg(np.zeros((2, 2), np.uint16), 0.0, "c"))).all()
    bad = np.array([[0.0, np.inf], [-1.0, np.nan]], np.float32)
    assert np.isnan(depth_from_msg(depth_to_msg(bad, 0.0, "c"))).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoding", "yuv422"),
        ("encoding", ""),
        ("encoding", "16UC1"),
        ("step", 10),
        ("height", 25),
        ("height", 0),
        ("width", 0),
        ("width", 2**31),
        ("data", b""),
    ],
)
def test_image_that_does_not_fit_is_refused(field: str, value: object) -> None:
    msg = image_to_msg(RGB, 0.0, "c")
    setattr(msg, field, value)
    with pytest.raises(ConversionError):
        image_from_msg(msg)


def test_arrays_that_are_no_image_are_refused() -> None:
    with pytest.raises(ConversionError):
        image_to_msg(RGB[..., 0], 0.0, "c")
    with pytest.raises(ConversionError):
        image_to_msg(RGB.astype(np.float32), 0.0, "c")  # type: ignore[arg-type]
    with pytest.raises(ConversionError):
        image_to_msg(RGB, 0.0, "c", "jpeg")
    with pytest.raises(ConversionError):
        depth_to_msg(np.zeros((2, 2)), 0.0, "c")
    with pytest.raises(ConversionError):
        depth_from_msg(image_to_msg(RGB, 0.0, "c"))


def test_message_is_made_fast() -> None:
    frame = np.zeros((240, 320, 3), np.uint8)
    begun_s = time.perf_counter()
    for _ in range(50):
        image_from_msg(image_to_msg(frame, 0.0, "c"))
    assert (time.perf_counter() - begun_s) / 50 < 0.005


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_equals_cv_bridge_where_it_is_installed(encoding: str) -> None:
    bridge_module = pytest.importorskip("cv_bridge", reason="cv_bridge comes with a ROS install only")
    bridge = bridge_module.CvBridge()
    msg = image_to_msg(RGB, 0.0, "c", encoding)
    assert np.array_equal(image_from_msg(msg), bridge.imgmsg_to_cv2(msg, "rgb8"))
    ours = np.frombuffer(msg.data, np.uint8)
    theirs = np.frombuffer(bridge.imgmsg_to_cv2(image_to_msg(RGB, 0.0, "c"), encoding).tobytes(), np.uint8)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
