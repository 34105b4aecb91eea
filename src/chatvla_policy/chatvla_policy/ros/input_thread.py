# SPDX-License-Identifier: Apache-2.0
"""Take images and joint states in a thread of their own, with a wait set that holds nothing else.

rclpy's executor looks through every timer, service and subscription of the node before each callback, which costs a
node of this size about 1 ms of the interpreter, 80 times a second; inference needs the interpreter too. This thread
waits as rclpy's own `wait_for_message` does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data

__all__ = ["InputThread"]

_WAIT_S, _REPORT_EVERY_S = 0.2, 5.0


class _NotExecuted(CallbackGroup):
    """Keeps the node's executor away from the subscriptions."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        return


class InputThread:
    """Subscriptions of a node and the thread that serves them. `subscribe`, then `start`, at the end `close`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._group = _NotExecuted()
        self._served: list[tuple[Any, Callable[[Any], None]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="inputs", daemon=True)
        self._reported_s, self._errors = -_REPORT_EVERY_S, 0

    def subscribe(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile = qos_profile_sensor_data,
        *,
        raw: bool = False,
    ) -> None:
        """Give the messages of `topic` to `callback`, in the thread; `raw` gives their bytes."""
        subscription = self._node.create_subscription(kind, topic, callback, qos, callback_group=self._group, raw=raw)
        self._served.append((subscription, callback))

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and the subscriptions."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for subscription, _ in self._served:
            self._node.destroy_subscription(subscription)
        self._served.clear()

    def _serve(self) -> None:
        context = self._node.context
        waiting = _rclpy.WaitSet(len(self._served), 0, 0, 0, 0, 0, context.handle)
        while not self._stop.is_set() and context.ok():
            waiting.clear_entities()
            for subscription, _ in self._served:
                waiting.add_subscription(subscription.handle)
            try:
                waiting.wait(int(_WAIT_S * 1e9))
            except _rclpy.RCLError as error:
                # A thread that ended here would leave the node without eyes, and say nothing.
                if context.ok():
                    self._report("waiting for inputs", error)
                    time.sleep(_WAIT_S)
                continue
            ready = set(waiting.get_ready_entities("subscription"))
            for subscription, callback in self._served:
                if subscription.handle.pointer in ready:
                    self._take(subscription, callback)

    def _take(self, subscription: Any, callback: Callable[[Any], None]) -> None:
        """Serve one message; whatever is wrong with it is reported at most once per 5 s and ends nothing."""
        try:
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is not None:
                callback(taken[0])
        except Exception as error:  # Text that is not UTF-8 raises here; a callback's own fault as well.
            self._report(f"an input on {subscription.topic_name}", error)

    def _report(self, what: str, error: Exception) -> None:
        self._errors += 1
        if time.monotonic() - self._reported_s > _REPORT_EVERY_S:
            self._reported_s = time.monotonic()
            self._node.get_logger().error(
                f"{what} failed ({self._errors} so far): {type(error).__name__}: {error!s:.300}"
            )
