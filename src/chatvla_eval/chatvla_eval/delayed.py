# SPDX-License-Identifier: Apache-2.0
"""Ask a policy whose inferences take time, on the simulated clock: the policy node's scheduler without ROS.

What the node does in real time is done here with stated delays: the robot moves on while the policy thinks, rows whose
time has passed are dropped, plans are joined, texts are kept. The same seed and delays give the same trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chatvla_control.contracts import Policy, ReasoningSource
from chatvla_control.robot_spec import RobotSpec
from chatvla_policy.runtime.inference import Outcome, run_job
from chatvla_policy.runtime.observation_sync import ObservationSync
from chatvla_policy.runtime.scheduler import Scheduler
from chatvla_policy.runtime.scheduler_settings import SchedulerSettings
from chatvla_sim.closed_loop import ClosedLoop

__all__ = ["DelayedPolicy"]


class DelayedPolicy:
    """One policy and its scheduler, for one trial."""

    def __init__(
        self,
        policy: Policy,
        spec: RobotSpec,
        cameras: Sequence[str],
        *,
        delay_s: tuple[float, float],
        period_s: float,
    ) -> None:
        """`delay_s`: how long an inference takes that keeps the text, and one that writes a new one."""
        self._policy, self._cameras, self._delay_s = policy, tuple(cameras), delay_s
        self._scheduler = Scheduler(
            spec=spec,
            sync=ObservationSync(spec, list(cameras)),
            settings=SchedulerSettings(chunk_period_s=period_s),
            tuning=getattr(policy, "settings", None),
        )
        self._outcome: Outcome | None = None
        self._ready_s = 0.0

    def follow(self, instruction: str, *, seed: int, forced: str | None) -> None:
        """Take up an instruction; act on `forced` instead of the policy's own text where it is given."""
        self._scheduler.follow(instruction, seed=seed)
        self._scheduler.force(forced)

    def tick(self, loop: ClosedLoop) -> Outcome | None:
        """Look, and begin an inference when one is due; return one whose time is over, its chunk cut and joined.

        Its inference is None where it failed or came too late to be played; then `error` says the failure, if any.
        """
        now_s, scheduler = loop.time_s, self._scheduler
        scheduler.sync.add_joints(replace(loop.bench.joint_state(), stamp_s=now_s))
        done = None
        if self._outcome is not None and now_s >= self._ready_s:
            done = replace(self._outcome, inference=scheduler.finish(self._outcome, now_s))
            self._outcome = None
        if self._outcome is None and scheduler.is_due(now_s):
            for view in self._cameras:
                scheduler.sync.add_image(view, loop.bench.render(view), now_s)
            if (job := scheduler.next_job(now_s)) is not None:
                self._outcome = run_job(self._policy, job)
                said = None if self._outcome.inference is None else self._outcome.inference.reasoning
                writes = said is not None and said.source is ReasoningSource.GENERATED and bool(said.text)
                self._ready_s = now_s + self._delay_s[writes]
        return done
