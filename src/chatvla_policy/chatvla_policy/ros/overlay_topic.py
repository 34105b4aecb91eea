# SPDX-License-Identifier: Apache-2.0
"""Publish the overlay at its own rate, and only where somebody looks."""

from __future__ import annotations

from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from chatvla_control.ros.images import image_to_msg
from chatvla_policy.ros.acting import Acting
from chatvla_policy.runtime.overlay import draw_overlay

__all__ = ["OverlayTopic"]


class OverlayTopic:
    """The newest image of the first view with boxes, text and plan."""

    def __init__(self, node: Node, publisher: Any, acting: Acting) -> None:
        self._node, self._publisher, self._acting = node, publisher, acting
        self._timer: Any = None
        self._rate_hz = 0.0

    def tend(self, rate_hz: float) -> None:
        """Draw at `rate_hz` from now on while somebody subscribes; call now and then."""
        if not self._publisher.is_activated or not self._publisher.get_subscription_count():
            rate_hz = 0.0
        if rate_hz == self._rate_hz:
            return
        self.close()
        self._rate_hz = rate_hz
        if rate_hz:
            self._timer = self._node.create_timer(
                1.0 / rate_hz, self._draw, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )

    def close(self) -> None:
        """Draw no more."""
        self._rate_hz = 0.0
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def _draw(self) -> None:
        now_s = self._acting.now_s()
        with self._acting.lock:
            scheduler = self._acting.scheduler
            images = scheduler.sync.latest_images()
            fault = scheduler.fault(now_s)
            reasoning, chunk = self._acting.reasoning, scheduler.playing
        if not images:
            return
        view = next(iter(images))
        picture = draw_overlay(
            images[view],
            view=view,
            reasoning=reasoning,
            chunk=chunk,
            spec=scheduler.spec,
            now_s=now_s,
            note=fault.message if fault else self._acting.error,
        )
        self._publisher.publish(image_to_msg(picture, now_s, f"camera_{view}_optical_frame"))
