# SPDX-License-Identifier: Apache-2.0
"""Join a scheduler, an inference thread and publishers: images come in, chunks go out, callbacks never wait for torch.

A policy that can write a text piece by piece makes the chunks that are due between the pieces, in the same thread: two
threads would share the processors, and each chunk would come later.

Methods may be called from any thread; one lock orders them. Inference itself holds no lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rclpy.lifecycle import LifecycleNode

from chatvla_control.contracts import ActionChunk, Inference, Policy, Reasoning
from chatvla_control.ros.convert import action_chunk_to_msg, reasoning_to_msg, router_stats_to_msg
from chatvla_policy.runtime.inference import Job, Outcome, WritingOver, run_job, write_text
from chatvla_policy.runtime.scheduler import Scheduler
from chatvla_policy.runtime.timing import StageTimes
from chatvla_policy.runtime.worker import Worker

__all__ = ["Acting", "Event", "Publishers"]


@dataclass(frozen=True, kw_only=True)
class Publishers:
    """Lifecycle publishers: silent while the node is inactive."""

    reasoning: Any
    chunk: Any
    router: Any


@dataclass(frozen=True, kw_only=True)
class Event:
    """What an inference came to, for the executor's thread."""

    inference: Inference | None
    error: str


class Acting:
    """One policy at work."""

    def __init__(
        self,
        node: LifecycleNode,
        policy: Policy,
        scheduler: Scheduler,
        publishers: Publishers,
        *,
        threads: int,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`wake` is called in the inference thread after each inference: there may be events."""
        self._wake = wake
        self._node, self._policy, self._publishers = node, policy, publishers
        self.scheduler = scheduler
        self.lock = threading.RLock()
        self.times = StageTimes()
        self.events: deque[Event] = deque(maxlen=100)
        self.reasoning: Reasoning | None = None
        self.error = ""
        """Sentence of the last inference when it failed."""
        self._active = False
        self._worker = Worker("inference", torch_threads=threads)
        scheduler.texts_apart = hasattr(policy, "write") and hasattr(policy, "adopt")
        scheduler.thinks_about = getattr(policy, "thinks_about", scheduler.thinks_about)

    @property
    def policy_counts(self) -> Mapping[str, int]:
        """What the policy counts of itself since its last instruction, by name; empty where it counts nothing."""
        return getattr(self._policy, "counts", None) or {}

    def now_s(self) -> float:
        """Return the node's time [s]."""
        return self._node.get_clock().now().nanoseconds * 1e-9

    def begin(self) -> None:
        """Let inferences begin."""
        with self.lock:
            self._active = True

    def stop(self) -> None:
        """Brake to rest, begin no inference, publish nothing more."""
        self.follow(None)
        with self.lock:
            self._active = False

    def close(self) -> None:
        """Wait for the inference on its way and end the thread."""
        self.stop()
        self._worker.close()

    def run_once(self, task: Callable[[], Any]) -> Any:
        """Run `task` in the inference thread and return what it returns; what it raises is raised here.

        It comes after what waits there already. Raises RuntimeError once the thread was told to end.
        """
        done, kept = threading.Event(), {}

        def work() -> None:
            try:
                kept["value"] = task()
            except BaseException as error:
                kept["error"] = error
            done.set()

        if not self._worker.submit(work, however_many_wait=True):
            raise RuntimeError("the inference thread has ended; configure the node again")
        done.wait()
        if "error" in kept:
            raise kept["error"]
        return kept["value"]

    def follow(self, instruction: str | None, *, seed: int = 0) -> None:
        """Take up an instruction; None brakes to rest."""
        with self.lock:
            self.events.clear()
            self.error = ""
            if instruction is not None:
                self.scheduler.follow(instruction, seed=seed)
            elif (hold := self.scheduler.stop(self.now_s())) is not None:
                self._publish_chunk(hold)
        self.pump()

    def force(self, text: str | None) -> None:
        """Act on `text`; None gives the reasoning back."""
        with self.lock:
            self.scheduler.force(text)
        self.pump()

    def pump(self, *, text_first: bool = False) -> bool:
        """Begin an inference when one is due and everything is there for it; return whether one began.

        A text that is due begins when no chunk is, or before it with `text_first`.
        """
        with self.lock:
            if not self._active:
                return False
            if self.scheduler.writing:
                # The inference thread looks for itself between the pieces of the text.
                return False
            if text_first and self._begin_text():
                return True
            job = self.scheduler.next_job(self.now_s())
            if job is None:
                return self._begin_text()
            if not self._worker.submit(lambda: self._infer(job)):
                self.scheduler.abandon()
                return False
        return True

    def _begin_text(self) -> bool:
        job = self.scheduler.next_text(self.now_s())
        if job is None:
            return False
        begun = self._worker.submit(lambda: self._write(job))
        if not begun:
            self.scheduler.abandon_text()
        return begun

    def _write(self, job: Job) -> None:
        """Run in the inference thread: write, publish the text, let the next inference take it up."""
        text, error = write_text(self._policy, job, pause=lambda: self._between_pieces(job))
        with self.lock:
            if self.scheduler.is_stale(job) or not self._active:
                self.scheduler.abandon_text()
            elif self.scheduler.take_text(job, text) and text is not None:
                self.reasoning = text
                self._publishers.reasoning.publish(reasoning_to_msg(text))
            elif error:
                self.error = error
                self.events.append(Event(inference=None, error=error))
            self.scheduler.settle()
        self.pump()
        self._wake()

    def _between_pieces(self, text: Job) -> None:
        """Make the chunk that is due; raise WritingOver when the text is for what is over."""
        with self.lock:
            if self.scheduler.is_stale(text) or not self._active:
                raise WritingOver
            job = self.scheduler.next_job(self.now_s())
        if job is not None:
            self._infer(job)

    def _infer(self, job: Job) -> None:
        """Run in the inference thread: infer, publish at once, go on."""
        outcome = run_job(self._policy, replace(job, begun_s=self.now_s()))
        with self.lock:
            inference = self.scheduler.finish(outcome, self.now_s())
            if inference is not None and self._active:
                self._publish(outcome, inference)
            self.scheduler.settle()
            if outcome.error and self._active and not self.scheduler.is_stale(job):
                self.error = outcome.error
                self.events.append(Event(inference=None, error=outcome.error))
        # Right after a chunk a text has the most time; and where chunks are always due, it would never begin.
        self.pump(text_first=True)
        self._wake()

    def _publish(self, outcome: Outcome, inference: Inference) -> None:
        self.error = ""
        self.reasoning = inference.reasoning
        # The chunk first: the robot waits for it.
        self._publish_chunk(inference.chunk)
        published_s = self.now_s()
        self._publishers.reasoning.publish(reasoning_to_msg(inference.reasoning))
        self.times.add(outcome, source=inference.reasoning.source.name.lower(), published_s=published_s)
        if inference.router is not None:
            self._publishers.router.publish(router_stats_to_msg(inference.router))
        self.events.append(Event(inference=inference, error=""))

    def _publish_chunk(self, chunk: ActionChunk) -> None:
        self._publishers.chunk.publish(action_chunk_to_msg(chunk, frame_id=self.scheduler.spec.base_frame))
