# SPDX-License-Identifier: Apache-2.0
"""Run a node until it is told to stop, whatever other nodes send it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

__all__ = ["serving", "spin_until", "stop_on_signals"]

_REPORT_EVERY_S = 5.0
_FAREWELL_S = 1.0
_LAST_ROUNDS = 3
"""An answer that is ready is sent by callbacks of its own, one after the other."""


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


Farewell = Callable[[], Callable[[], bool]]


def spin_until(node: Node, stop: threading.Event, *, farewell: Farewell | None = None) -> None:
    """Serve the node's callbacks until `stop` is set or the context ends.

    Then `farewell` is called, and the callbacks are served on, for a second at most, until what it returned says that
    all is told. An exception in a callback, or a message that cannot be deserialised (text that is not UTF-8), is
    reported at most once per 5 s and does not end the node.
    """
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    reported_s = -_REPORT_EVERY_S
    errors = 0

    def serve(seconds: float) -> None:
        nonlocal errors, reported_s
        try:
            executor.spin_once(timeout_sec=seconds)
        except (ExternalShutdownException, KeyboardInterrupt):
            raise
        except Exception as error:
            errors += 1
            if time.monotonic() - reported_s > _REPORT_EVERY_S:
                reported_s = time.monotonic()
                node.get_logger().error(f"a callback failed ({errors} so far): {type(error).__name__}: {error!s:.300}")

    try:
        while node.context.ok() and not stop.is_set():
            serve(0.1)
        if farewell is not None and node.context.ok():
            told, until_s = farewell(), time.monotonic() + _FAREWELL_S
            while not told() and time.monotonic() < until_s:
                serve(0.02)
            for _ in range(_LAST_ROUNDS):
                serve(0.01)
    except (ExternalShutdownException, KeyboardInterrupt):
        return
    finally:
        executor.remove_node(node)
        executor.shutdown(timeout_sec=1.0)


@contextmanager
def serving(node: Node, *, farewell: Farewell | None = None) -> Iterator[None]:
    """Serve the node's callbacks in a thread of its own, which has ended when the block is left (see `spin_until`).

    The thread ends its executor itself: `Executor.shutdown` from another thread may take the wake-up away from under
    a wait that has just begun, which then never returns.
    """
    stop = threading.Event()
    spin = partial(spin_until, node, stop, farewell=farewell)
    thread = threading.Thread(target=spin, name=f"serves {node.get_name()}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
