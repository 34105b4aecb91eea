# SPDX-License-Identifier: Apache-2.0
"""A driver, a camera and a scheduler on one simulated clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chatvla_control.arm_controller import ArmController
from chatvla_control.contracts import ActionChunk
from chatvla_policy.runtime.inference import run_job
from chatvla_policy.runtime.observation_sync import ObservationSync
from chatvla_policy.runtime.scheduler import Scheduler
from chatvla_policy.runtime.scheduler_settings import SchedulerSettings
from chatvla_policy.systems.settings import Reuse

from .swinging import SPEC, STEP_S, SwingingPolicy, joint_state, picture

PICTURE = picture()
LATER = PICTURE ^ 1
"""The same scene as a real camera sees it the next time: the last bit differs."""


class Robot:
    """A driver, a camera and a scheduler on one simulated clock; inference takes what `delay_s` says."""

    def __init__(self, *, policy: SwingingPolicy | None = None, delay_s=lambda: 0.1, **settings: object) -> None:
        self.policy = policy or SwingingPolicy()
        self.sync = ObservationSync(SPEC, ["top"])
        self.scheduler = Scheduler(
            spec=SPEC, sync=self.sync, settings=SchedulerSettings(**settings), tuning=self.policy.settings
        )
        self.controller = ArmController(SPEC)
        self.now_s, self.delay_s = 100.0, delay_s
        self.positions = np.clip(np.array(SPEC.home), SPEC.lower + 0.3, SPEC.upper - 0.3)
        self.positions[[6, 13]] = 0.04
        self.velocities = np.zeros(SPEC.width)
        self.outcome, self.ready_s = None, 0.0
        self.published: list[tuple[float, ActionChunk | None, ActionChunk]] = []
        self.inferences, self.commands, self.refused = [], [], []

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.tick()

    def tick(self) -> None:
        self.sync.add_joints(joint_state(self.now_s, self.positions, self.velocities))
        self.sync.add_image("top", (PICTURE, LATER)[len(self.commands) % 2], self.now_s)
        if self.outcome is not None and self.now_s >= self.ready_s:
            outcome, self.outcome = self.outcome, None
            before = self.scheduler.playing
            inference = self.scheduler.finish(outcome, self.now_s)
            if inference is not None:
                self.inferences.append(inference)
                self.published.append((self.now_s, before, inference.chunk))
                fault = self.controller.accept(inference.chunk, now_s=self.now_s, measured=self.positions)
                self.refused += [fault] if fault else []
        if (job := self.scheduler.next_job(self.now_s)) is not None:
            self.outcome, self.ready_s = run_job(self.policy, job), self.now_s + self.delay_s()
        command = self.controller.step(now_s=self.now_s, measured=self.positions)
        self.positions, self.velocities = command.positions, command.velocities
        self.commands.append(command.positions)
        self.now_s += STEP_S


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Settings of a policy that keeps its texts."""

    commit_s: float = 0.0
    reuse: Reuse = Reuse.REFRESH
    reason_every_s: float = 60.0
