# SPDX-License-Identifier: Apache-2.0
"""Compare a checkpoint with the graph it shall act in: cameras, joint names, the robot's spec."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from chatvla_control.robot_spec import RobotSpec, robot_names, robot_spec
from chatvla_control.ros.convert import ConversionError, joint_state_from_msg
from chatvla_control.ros.images import image_from_msg

__all__ = ["InputsMissingError", "MismatchError", "camera_topic", "check_live_graph", "check_spec"]

_ASPECT = 0.05
"""How far an image's shape may be from the model's: whole image tokens are 308x224 for a camera of 320x240, and the
few rows between are filled up."""


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
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, tuple[int, int]]:
    """Return the (height, width) [pixels] of each view, seen on the live topics within `wait_s`.

    Listens with a node of its own, so it may be called from a callback of `node`. `model_size` (height, width) is what
    the model sees: images of another shape are refused. Raises InputsMissingError and MismatchError.
    """
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
    topics = {view: node.resolve_topic_name(camera_topic(view)) for view in cameras}
    joints = node.resolve_topic_name("joint_states")
    try:
        for view, topic in topics.items():
            probe.create_subscription(Image, topic, keep(view), qos_profile_sensor_data)
        probe.create_subscription(JointState, joints, keep("joint_states"), qos_profile_sensor_data)
        end = time.monotonic() + wait_s
        while len(seen) <= len(cameras) and time.monotonic() < end and node.context.ok() and not stopped():
            executor.spin_once(timeout_sec=0.05)
    finally:
        executor.shutdown(timeout_sec=1.0)
        probe.destroy_node()
    for name, topic in {**topics, "joint_states": joints}.items():
        if name not in seen:
            raise InputsMissingError(f"{topic} sends nothing within {wait_s:g} s; is its sender running?")
    try:
        joint_state_from_msg(seen["joint_states"], spec.joint_names)
    except ConversionError as error:
        raise MismatchError(f"{joints} does not fit {spec.name}: {error}") from error
    return {view: _size(topics[view], seen[view], model_size) for view in cameras}


def _size(topic: str, msg: Image, model_size: tuple[int, int] | None) -> tuple[int, int]:
    try:
        height, width = image_from_msg(msg).shape[:2]
    except ConversionError as error:
        raise MismatchError(f"{topic} cannot be read: {error}") from error
    if model_size is not None and abs((width / height) / (model_size[1] / model_size[0]) - 1.0) > _ASPECT:
        raise MismatchError(
            f"{topic} sends {width}x{height} pixels, the model sees {model_size[1]}x{model_size[0]}: another shape; "
            "choose a camera profile of that shape"
        )
    return height, width
