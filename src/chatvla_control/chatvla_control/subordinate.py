# SPDX-License-Identifier: Apache-2.0
"""Processes that end when the one that started them does, however it ends: also by SIGKILL.

A pool's worker else waits for work for ever, and a training goes on in a folder that nobody watches.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

__all__ = ["end_with_parent", "worker_pool"]

_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def worker_pool(workers: int, prepare: Callable[[], None] | None = None) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of at most `workers` processes that end with the block or with this process; Ctrl-C is left to it.

    Leaving the block, by its end or an exception, ends what still runs. Spawned: OpenGL contexts and ROS middleware
    do not survive a fork, nor, some of them, the interpreter's end. `prepare` runs first in each.
    """
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(prepare,))
    try:
        yield pool
    finally:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """Return a `preexec_fn`: the new process gets signal `number` when the thread that starts it ends.

    Only Linux can; elsewhere the process lives on. Call it before the fork, from a thread that stays.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _start_worker(prepare: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch_parent, name="watch_parent", daemon=True).start()
    if prepare is not None:
        prepare()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
