# SPDX-License-Identifier: Apache-2.0
"""Translate quality of service between rclpy and bags, and choose what a recorder asks for."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

__all__ = ["bag_qos", "publisher_qos", "recorder_qos"]

RECORDER_DEPTH = 100
"""Messages of one topic that may wait for the recorder; at 100 Hz, a second. Each may be as large as the largest."""
_UNKNOWN_DEPTH = {DurabilityPolicy.TRANSIENT_LOCAL: 1}
_DEFAULT_DEPTH = 10


def recorder_qos(offered: Sequence[QoSProfile]) -> QoSProfile:
    """Return the strongest profile that every one of the `offered` ones can serve."""
    reliable = all(qos.reliability is ReliabilityPolicy.RELIABLE for qos in offered)
    latched = all(qos.durability is DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=RECORDER_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def bag_qos(offered: QoSProfile) -> Qos:
    """Return an offered profile as a bag stores it.

    Publishers do not announce their history: the depth stored is 1 for transient-local topics and 10 for others.
    """
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=offered.depth or _UNKNOWN_DEPTH.get(offered.durability, _DEFAULT_DEPTH),
        reliability=QosReliability[offered.reliability.name],
        durability=QosDurability[offered.durability.name],
        deadline=_bag_time(offered.deadline),
        lifespan=_bag_time(offered.lifespan),
        liveliness=QosLiveliness[offered.liveliness.name],
        liveliness_lease_duration=_bag_time(offered.liveliness_lease_duration),
        avoid_ros_namespace_conventions=offered.avoid_ros_namespace_conventions,
    )


def publisher_qos(stored: Sequence[Qos]) -> QoSProfile:
    """Return the profile to replay a topic with: reliable and transient local where the bag says so.

    Deadline, lifespan and liveliness are promises of the recorded publisher about its own timing, not the replay's.
    """
    latched = any(qos.durability is QosDurability.TRANSIENT_LOCAL for qos in stored)
    best_effort = bool(stored) and all(qos.reliability is QosReliability.BEST_EFFORT for qos in stored)
    depth = max((qos.depth for qos in stored), default=_DEFAULT_DEPTH)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=max(depth, 1) if latched else max(depth, RECORDER_DEPTH),
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        liveliness=LivelinessPolicy.AUTOMATIC,
    )


def _bag_time(duration: Duration) -> QosTime:
    seconds, nanoseconds = divmod(duration.nanoseconds, 10**9)
    return QosTime(seconds, nanoseconds)
