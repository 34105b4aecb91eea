# SPDX-License-Identifier: Apache-2.0
"""Compare a checkpoint with the graph it shall act in: cameras, joint names, the robot's spec."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, JointState

from chatvla_control.robot_spec import RobotSpec, robot_names, robot_spec
from chatvla_control.ros.convert import ConversionError, joint_state_from_msg
from chatvla_control.ros.images import image_from_msg
from chatvla_policy.runtime.view_window import Lens, Window, WindowError, central_window

__all__ = ["InputsMissingError", "MismatchError", "camera_topic", "check_live_graph", "check_spec"]


class MismatchError(ValueError):
    """Checkpoint and graph do not belong together; one sentence says where."""


class InputsMissingError(ValueError):
    """A topic that the policy needs sends nothing yet; one sentence says which."""


def camera_topic(view: str) -> str:
    """Return the relative topic of a view's images."""
    return f"camera/{view}/image_raw"


def check_spec(spec: RobotSpec) -> None:
    """Raise MismatchError when the checkpoint's robot is not the installed one."""
    if spec.name not in robot_names():
        raise MismatchError(f"the checkpoint is for robot {spec.name!r}; installed are: {', '.join(robot_names())}")
    installed = robot_spec(spec.name)
    if installed.sha256() == spec.sha256():
        return
    ours, theirs = installed.to_dict(), spec.to_dict()
    fields = ", ".join(key for key in ours if ours[key] != theirs.get(key))
    raise MismatchError(
        f"the checkpoint's {spec.name} differs from the installed one in: {fields}; train anew or install its version"
    )


def check_live_graph(
    node: Node,
    spec: RobotSpec,
    cameras: tuple[str, ...],
    *,
    wait_s: float,
    model_size: tuple[int, int] | None,
    view_heights_deg: Mapping[str, float] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Window]:
    """Return which part of each view's images is taken, by what the live topics send within `wait_s`.

    Listens with a node of its own, so it may be called from a callback of `node`. `model_size` (height, width) is what
    the model sees; a view in `view_heights_deg` is so high [degrees], 0 as high as the camera's. Logs what is cut.
    Raises InputsMissingError and MismatchError.
    """
    heights_deg = view_heights_deg or {}
    joints = node.resolve_topic_name("joint_states")
    listened: dict[str, Any] = {node.resolve_topic_name(camera_topic(view)): Image for view in cameras}
    listened[joints] = JointState
    listened |= {_info_topic(node, view): CameraInfo for view in cameras if heights_deg.get(view)}
    seen = _newest(node, listened, wait_s, stopped)
    for topic, kind in listened.items():
        if topic not in seen:
            purpose = ", which parameter view_height_deg needs" if kind is CameraInfo else ""
            raise InputsMissingError(f"{topic} sends nothing within {wait_s:g} s{purpose}; is its sender running?")
    try:
        joint_state_from_msg(seen[joints], spec.joint_names)
    except ConversionError as error:
        raise MismatchError(f"{joints} does not fit {spec.name}: {error}") from error
    windows: dict[str, Window] = {}
    for view in cameras:
        topic, height_deg = node.resolve_topic_name(camera_topic(view)), heights_deg.get(view, 0.0)
        lens = _lens(seen[_info_topic(node, view)]) if height_deg else None
        windows[view] = _window(topic, seen[topic], model_size, height_deg, lens)
    for view, window in windows.items():
        if not window.whole:
            node.get_logger().info(_cut_sentence(view, window, model_size, heights_deg.get(view, 0.0)))
    return windows


def _info_topic(node: Node, view: str) -> str:
    return node.resolve_topic_name(f"camera/{view}/camera_info")


def _newest(node: Node, listened: dict[str, Any], wait_s: float, stopped: Callable[[], bool]) -> dict[str, Any]:
    """Return a message of each topic that sends one within `wait_s`."""
    seen: dict[str, Any] = {}

    def keep(name: str) -> Callable[[Any], None]:
        return lambda msg: seen.__setitem__(name, msg)

    probe = Node(
        f"{node.get_name()}_probe",
        namespace=node.get_namespace(),
        context=node.context,
        use_global_arguments=False,
        start_parameter_services=False,
        enable_rosout=False,
    )
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(probe)
    try:
        for topic, kind in listened.items():
            probe.create_subscription(kind, topic, keep(topic), qos_profile_sensor_data)
        end = time.monotonic() + wait_s
        while len(seen) < len(listened) and time.monotonic() < end and node.context.ok() and not stopped():
            executor.spin_once(timeout_sec=0.05)
    finally:
        executor.shutdown(timeout_sec=1.0)
        probe.destroy_node()
    return seen


def _lens(msg: CameraInfo) -> Lens:
    return Lens((int(msg.height), int(msg.width)), float(msg.k[4]))


def _window(topic: str, msg: Image, model_size: tuple[int, int] | None, height_deg: float, lens: Lens | None) -> Window:
    try:
        height, width = image_from_msg(msg).shape[:2]
    except ConversionError as error:
        raise MismatchError(f"{topic} cannot be read: {error}") from error
    try:
        return central_window((height, width), model_size=model_size, height_deg=height_deg, lens=lens)
    except WindowError as error:
        raise MismatchError(f"{topic} sends {width}x{height} pixels, {error}") from error


def _cut_sentence(view: str, window: Window, model_size: tuple[int, int] | None, height_deg: float) -> str:
    """Return what is taken of a camera's images."""
    (height, width), (all_rows, all_columns) = window.size, window.source
    why = f", {height_deg:g} degrees high" if height_deg else ", of the model's shape"
    seen = f"; the model sees it in {model_size[1]}x{model_size[0]}" if model_size is not None else ""
    return f"camera {view}: the middle {width}x{height} of {all_columns}x{all_rows} pixels is taken{why}{seen}"
