# SPDX-License-Identifier: Apache-2.0
"""Turn BenchState into SceneTruth and back. Units m; unit quaternions x y z w; poses in the robot's base frame."""

# Generated messages and array.array carry no types that pyright knows:
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from typing import get_args

from geometry_msgs.msg import Point, Quaternion, Vector3
from geometry_msgs.msg import Pose as PoseMsg

from chatvla_control.contracts import BoundingBox
from chatvla_control.ros.errors import ConversionError
from chatvla_control.ros.stamps import time_from_msg, time_to_msg
from chatvla_control.scene import ObjectRole, Pose, SceneObject, SceneTruth
from chatvla_msgs.msg import BenchObject, BenchState
from chatvla_msgs.msg import BoundingBox as BoundingBoxMsg

__all__ = ["scene_truth_from_msg", "scene_truth_to_msg"]

_ROLES: tuple[str, ...] = get_args(ObjectRole)


def scene_truth_to_msg(truth: SceneTruth, *, frame_id: str = "base", real_time_factor: float = 0.0) -> BenchState:
    """Return the truth as a message; `real_time_factor` is simulated s per s. Raises ConversionError."""
    msg = BenchState()
    msg.header.stamp = time_to_msg(truth.stamp_s)
    msg.header.frame_id = frame_id
    msg.task, msg.split, msg.seed, msg.swap, msg.trial = truth.task, truth.split, truth.seed, truth.swap, truth.trial
    msg.phase = BenchState.READY if truth.ready else BenchState.RESETTING
    msg.instruction, msg.equation, msg.answer = truth.instruction, truth.equation, truth.answer
    msg.target, msg.goal = truth.target, _pose_to_msg(truth.goal)
    msg.objects = [_object_to_msg(item) for item in truth.objects]
    msg.placed, msg.success, msg.subsets = truth.placed, truth.success, list(truth.subsets)
    msg.real_time_factor = float(real_time_factor)
    return msg


def scene_truth_from_msg(msg: BenchState) -> SceneTruth:
    """Return the message's truth. Raises ConversionError."""
    if msg.phase not in (BenchState.RESETTING, BenchState.READY):
        raise ConversionError("phase", f"phase is {msg.phase}, expected 0 RESETTING or 1 READY")
    return SceneTruth(
        stamp_s=time_from_msg(msg.header.stamp),
        task=msg.task,
        split=msg.split,
        seed=int(msg.seed),
        swap=bool(msg.swap),
        trial=int(msg.trial),
        ready=msg.phase == BenchState.READY,
        instruction=msg.instruction,
        equation=msg.equation,
        answer=msg.answer,
        target=msg.target,
        goal=_pose_from_msg(msg.goal),
        objects=tuple(_object_from_msg(item) for item in msg.objects),
        placed=msg.placed,
        success=bool(msg.success),
        subsets=tuple(msg.subsets),
    )


def _object_to_msg(item: SceneObject) -> BenchObject:
    msg = BenchObject(
        name=item.name, label=item.label, role=item.role, place=item.place, held=item.held, placed=item.placed
    )
    msg.pose = _pose_to_msg(item.pose)
    msg.size = Vector3(x=float(item.size[0]), y=float(item.size[1]), z=float(item.size[2]))
    if item.box is not None:
        box = item.box
        msg.box = BoundingBoxMsg(
            label=box.label,
            view=box.view,
            x_min=float(box.x_min),
            y_min=float(box.y_min),
            x_max=float(box.x_max),
            y_max=float(box.y_max),
        )
    return msg


def _object_from_msg(msg: BenchObject) -> SceneObject:
    role = next((known for known in get_args(ObjectRole) if known == msg.role), None)
    if role is None:
        raise ConversionError(
            "role", f"object {msg.name!r:.60} has role {msg.role!r:.60}, expected one of {', '.join(_ROLES)}"
        )
    corners = (float(msg.box.x_min), float(msg.box.y_min), float(msg.box.x_max), float(msg.box.y_max))
    if not all(math.isfinite(corner) for corner in corners):
        raise ConversionError("box", f"object {msg.name!r:.60} has box {corners}, expected finite pixels")
    box = None
    if any(corners):
        box = BoundingBox(
            label=msg.box.label,
            view=msg.box.view,
            x_min=corners[0],
            y_min=corners[1],
            x_max=corners[2],
            y_max=corners[3],
        )
    return SceneObject(
        name=msg.name,
        label=msg.label,
        role=role,
        place=msg.place,
        pose=_pose_from_msg(msg.pose),
        size=(msg.size.x, msg.size.y, msg.size.z),
        held=bool(msg.held),
        placed=bool(msg.placed),
        box=box,
    )


def _pose_to_msg(pose: Pose) -> PoseMsg:
    x, y, z = (float(value) for value in pose.position)
    qx, qy, qz, qw = (float(value) for value in pose.quaternion)
    return PoseMsg(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def _pose_from_msg(msg: PoseMsg) -> Pose:
    position = (msg.position.x, msg.position.y, msg.position.z)
    quaternion = (msg.orientation.x, msg.orientation.y, msg.orientation.z, msg.orientation.w)
    if not all(math.isfinite(value) for value in (*position, *quaternion)):
        raise ConversionError("pose", f"pose {position}, {quaternion} has values that are not finite")
    return Pose(position=position, quaternion=quaternion)
