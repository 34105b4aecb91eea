# SPDX-License-Identifier: Apache-2.0
"""Publish the overlay at its own rate, and only where somebody looks."""

from __future__ import annotations

from typing import Any

from chatvla_control.ros.images import image_to_msg
from chatvla_policy.ros.acting import Acting
from chatvla_policy.runtime.overlay import draw_overlay

__all__ = ["OverlayTopic"]


class OverlayTopic:
    """The newest image of the first view with boxes, text and plan."""

    def __init__(self, publisher: Any, acting: Acting) -> None:
        self._publisher, self._acting = publisher, acting
        self._drawn_s = 0.0

    def draw(self, rate_hz: float) -> None:
        """Publish a picture when one is due at `rate_hz` and somebody subscribes."""
        now_s = self._acting.now_s()
        if not rate_hz or not self._publisher.is_activated or not self._publisher.get_subscription_count():
            return
        if 0.0 <= now_s - self._drawn_s < 1.0 / rate_hz:
            return
        self._drawn_s = now_s
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
