# SPDX-License-Identifier: Apache-2.0
"""Run inferences one at a time in a thread of their own, with its own number of torch threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import torch

__all__ = ["Worker"]


class Worker:
    """One thread and a queue of at most `depth` tasks."""

    def __init__(self, name: str, *, torch_threads: int, depth: int = 1) -> None:
        """Start the thread; `torch_threads` is the number of threads one torch operation may use."""
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._depth = depth
        self._waiting = 0
        self._closed = False
        self._lock = threading.Lock()
        self._threads = torch_threads
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: Callable[[], None], *, however_many_wait: bool = False) -> bool:
        """Run `task` when the ones before it are done; False when too many wait, or the thread was told to end.

        The task must not raise. `however_many_wait` sets the depth aside.
        """
        with self._lock:
            if self._closed or (self._waiting >= self._depth and not however_many_wait):
                return False
            self._waiting += 1
            self._tasks.put(task)
        return True

    def close(self, timeout_s: float = 30.0) -> bool:
        """End the thread after the tasks it has; return whether it ended in time."""
        with self._lock:
            self._closed = True
            self._tasks.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        while (task := self._tasks.get()) is not None:
            # Freed first: a task may well submit the next one.
            with self._lock:
                self._waiting -= 1
            task()
