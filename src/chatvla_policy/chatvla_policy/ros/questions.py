# SPDX-License-Identifier: Apache-2.0
"""Serve `ask`: questions about the newest images, answered in a thread of their own while acting goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.task import Future

from chatvla_control.contracts import Policy
from chatvla_control.ros.forced_text import LONGEST_TEXT
from chatvla_msgs.srv import Ask
from chatvla_policy.ros.acting import Acting
from chatvla_policy.runtime.worker import Worker

__all__ = ["Questions"]

_WAITING = 4


class Questions:
    """The service's logic."""

    def __init__(self, policy: Policy, acting: Acting, *, threads: int, refusal: Callable[[], str]) -> None:
        """`refusal` returns why nothing is answered now, or ""."""
        self._policy, self._acting, self._refusal = policy, acting, refusal
        self._worker = Worker("questions", torch_threads=threads, depth=_WAITING)

    def close(self) -> None:
        """End the thread after the question it is at."""
        self._worker.close()

    async def on_ask(self, request: Ask.Request, response: Ask.Response) -> Ask.Response:
        """Serve one call."""
        started = time.monotonic()
        question = request.question.strip()
        refusal = self._refusal() or self._unfit(question)
        if refusal:
            response.message = refusal
            return response
        with self._acting.lock:
            images = self._acting.scheduler.sync.latest_images()
        done = Future()

        def work() -> None:
            try:
                done.set_result((self._policy.ask(question, images), ""))  # type: ignore[attr-defined]
            except Exception as error:  # The model may fail in any way; the caller is told.
                done.set_result(("", f"{type(error).__name__}: {error!s:.300}"))

        if not self._worker.submit(work):
            response.message = f"{_WAITING} questions wait already; ask again later"
            return response
        response.answer, response.message = await done
        response.success = not response.message
        response.seconds = time.monotonic() - started
        return response

    def _unfit(self, question: str) -> str:
        if not 1 <= len(question) <= LONGEST_TEXT:
            return f"the question has {len(question)} characters, allowed are 1 to {LONGEST_TEXT}"
        return "" if hasattr(self._policy, "ask") else f"policy {self._policy.name!r} answers no questions"
