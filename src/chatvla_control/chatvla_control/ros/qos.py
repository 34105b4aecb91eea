# SPDX-License-Identifier: Apache-2.0
"""Quality of service of subscriptions that want the newest message alone.

Their depth is 10, not 1: at depth 1 Fast DDS 2.14 does not free what it holds of a message in fragments (over 64 kB)
when another sender's message displaces it, so a reader of two senders grows for as long as one sends large messages.
A reliable reader that falls behind grows at depth 10 too, a quarter as fast: streams are taken best effort.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

__all__ = ["NEWEST", "NEWEST_LATCHED", "NEWEST_UNRELIABLE"]

NEWEST = QoSProfile(depth=10)
NEWEST_UNRELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
NEWEST_LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Hears what was sent before it came."""
