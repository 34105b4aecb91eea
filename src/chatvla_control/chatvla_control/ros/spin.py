# SPDX-License-Identifier: Apache-2.0
"""Run a node until it is told to stop, whatever other nodes send it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

__all__ = ["serving", "spin_until", "stop_on_signals"]

_REPORT_EVERY_S = 5.0


def stop_on_signals() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set; call in the main thread after `rclpy.init` without signal handlers.

    Unlike rclpy's own handlers this leaves the context alive, so a node can still publish its last command.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop


def spin_until(node: Node, stop: threading.Event) -> None:
    """Serve the node's callbacks until `stop` is set or the context ends.

    An exception in a callback, or a message that cannot be deserialised (text that is not UTF-8), is reported at most
    once per 5 s and does not end the node.
    """
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    reported_s = -_REPORT_EVERY_S
    errors = 0
    try:
        while node.context.ok() and not stop.is_set():
            try:
                executor.spin_once(timeout_sec=0.1)
            except (ExternalShutdownException, KeyboardInterrupt):
                return
            except Exception as error:
                errors += 1
                if time.monotonic() - reported_s > _REPORT_EVERY_S:
                    reported_s = time.monotonic()
                    node.get_logger().error(
                        f"a callback failed ({errors} so far): {type(error).__name__}: {error!s:.300}"
                    )
    finally:
        executor.remove_node(node)
        executor.shutdown(timeout_sec=1.0)


@contextmanager
def serving(node: Node) -> Iterator[None]:
    """Serve the node's callbacks in a thread of its own, which has ended when the block is left.

    The thread ends its executor itself: `Executor.shutdown` from another thread may take the wake-up away from under
    a wait that has just begun, which then never returns.
    """
    stop = threading.Event()
    thread = threading.Thread(target=spin_until, args=(node, stop), name=f"serves {node.get_name()}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
