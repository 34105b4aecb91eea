# SPDX-License-Identifier: Apache-2.0
"""Run trials without ROS on the simulated clock, through the same chunk check, player and watchdog as the driver.

The policy gets observations only: images, joint positions, instruction. Every trial has a bench of its own, so that its
result does not depend on the trials before it.
"""

from __future__ import annotations

import sys
import traceback

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk, Inference, Policy
from chatvla_control.scene import SceneTruth
from chatvla_eval.delayed import DelayedPolicy
from chatvla_eval.policies import check_fits, keep_text, make_policy
from chatvla_eval.session import TrialSetup, Watch
from chatvla_sim.bench import Bench
from chatvla_sim.benches import make_bench
from chatvla_sim.closed_loop import ClosedLoop

__all__ = ["InProcessSession"]

SLICE_S = 0.1
"""Simulated time per `watch`."""


class InProcessSession:
    """One bench and one policy in this process. Not thread-safe."""

    simulation = True

    def __init__(
        self,
        *,
        task: str,
        policy: str,
        replan_s: float = 0.5,
        delay_s: tuple[float, float] | None = None,
        device: str = "cpu",
    ) -> None:
        """Ask the policy every `replan_s` of simulated time; with `delay_s` its inferences take that time (delayed.py).

        Raises PolicyUnavailableError and BenchError.
        """
        self._task = task
        self._policy_wanted, self._device = policy, device
        self._replan_s, self._delay_s = replan_s, delay_s
        try:
            self._open()
        except ValueError:
            self._bench.close()  # An OpenGL context must not live until the interpreter ends.
            raise
        self.policy_name = self._policy.name
        self.privileged = self._policy.privileged

    def reset(self, setup: TrialSetup) -> SceneTruth:
        """Build the trial's scene on a fresh bench, arms at home."""
        if self._used:
            self._bench.close()
            self._open()
        self._used = True
        fonts = list(setup.fonts) or None
        return self._bench.reset(split=setup.split, seed=setup.seed, swap=setup.swap, equation_fonts=fonts)

    def start(self, setup: TrialSetup, instruction: str, timeout_s: float) -> None:
        """Give the policy its instruction; `timeout_s` is watched by the caller.

        Raises ValueError for a forced text that the policy can't act on.
        """
        if setup.forced_reasoning:
            getattr(self._policy, "check_forced", lambda text: None)(setup.forced_reasoning)
        self._policy.reset(setup.seed)
        self._instruction = instruction
        self._forced = setup.forced_reasoning or None
        self._started_s = self._next_s = self._bench.time_s
        if self._delay_s is not None:
            views = getattr(getattr(self._policy, "setup", None), "cameras", ()) or self._bench.views
            self._delayed = DelayedPolicy(
                self._policy, self._bench.spec, views, delay_s=self._delay_s, period_s=self._replan_s
            )
            self._delayed.follow(instruction, seed=setup.seed, forced=self._forced)

    def watch(self) -> Watch:
        """Advance a tenth of a simulated second and return what is known."""
        for _ in range(round(SLICE_S * self._bench.spec.rate_hz)):
            if not (self._finished or self._error):
                self._ask()
            self._loop.tick()
        return Watch(
            elapsed_s=self._bench.time_s - self._started_s,
            truth=self._bench.truth(),
            texts=tuple(self._texts),
            finished=self._finished,
            error=self._error,
            refused=self._refused,
            clock_s=self._bench.time_s,
            joints=self._bench.joint_state().positions.copy(),
            chunks=tuple(self._chunks),
            counts=getattr(self._policy, "counts", None) or {},
        )

    def frame(self) -> NDArray[np.uint8] | None:
        """Return the first view's image now."""
        return self._bench.render(self._bench.views[0])

    def stop(self) -> None:
        """Ask the policy no more."""
        self._finished = True

    def close(self) -> None:
        """Free the bench."""
        self._bench.close()

    def _open(self) -> None:
        self._bench: Bench = make_bench(self._task)
        self._loop = ClosedLoop(self._bench)
        self._policy: Policy = make_policy(
            self._policy_wanted,
            task=self._task,
            spec=self._bench.spec,
            truth=self._bench.truth,
            device=self._device,
        )
        check_fits(self._policy, task=self._task, spec=self._bench.spec, cameras=self._bench.cameras)
        keep_text(self._policy)
        # A policy of several cameras gets its own.
        self._bench.use_views(getattr(getattr(self._policy, "setup", None), "cameras", ()))
        self._instruction = ""
        self._forced: str | None = None
        self._texts: list[str] = []
        self._chunks: list[ActionChunk] = []
        self._previous: ActionChunk | None = None
        self._delayed: DelayedPolicy | None = None
        self._finished = False
        self._error = ""
        self._refused = ""
        self._used = False
        self._started_s = self._next_s = 0.0

    def _ask(self) -> None:
        """Ask the policy when it is time, and take what it says."""
        if self._delayed is not None:
            outcome = self._delayed.tick(self._loop)
            if outcome is not None and outcome.error:
                self._error = outcome.error
            elif outcome is not None and outcome.inference is not None:
                self._take(outcome.inference)
        # Half a tick of tolerance: simulated time is a sum of physics steps.
        elif self._bench.time_s >= self._next_s - 0.5 / self._bench.spec.rate_hz:
            self._next_s += self._replan_s
            self._infer()

    def _infer(self) -> None:
        """Ask the policy once and give its chunk to the controller."""
        # A privileged policy looks at no image, and drawing one is what costs time.
        observation = self._loop.observe(self._instruction, () if self._policy.privileged else None)
        try:
            inference = self._policy.infer(observation, self._forced, self._previous)
        except Exception as error:  # A policy may fail in any way; the trial ends with the sentence as its cause.
            traceback.print_exc(file=sys.stderr)
            self._error = f"{type(error).__name__}: {error}"
            return
        self._take(inference)

    def _take(self, inference: Inference) -> None:
        """Give an inference's chunk to the controller and keep its text."""
        text = inference.reasoning.text
        if text and (not self._texts or text != self._texts[-1]):
            self._texts.append(text)
        self._chunks.append(inference.chunk)
        fault = self._loop.accept(inference.chunk)
        self._refused = fault.code.value if fault else ""
        self._previous = self._previous if fault else inference.chunk
        self._finished = inference.done
