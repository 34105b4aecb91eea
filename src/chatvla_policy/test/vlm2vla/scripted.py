# SPDX-License-Identifier: Apache-2.0
"""A writer whose answers are given, and a robot that plays what the driver's own controller lets through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_controller import ArmController
from chatvla_control.contracts import ActionChunk, ActionMode, Inference, Observation
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.checkpoint.setup import RobotSetup
from chatvla_policy.processing.statistics import RobotStatistics, Statistics
from chatvla_policy.systems.vlm2vla import Vlm2VlaPolicy
from chatvla_policy.vlm2vla.config import RobotMotion, Temperatures, Variant, Vlm2VlaConfig
from chatvla_policy.vlm2vla.verifier import Verifier

SPEC = robot_spec("arx_r5")
HOME = np.array(SPEC.home)
HOME[[6, 13]] = 0.08


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question as it came."""

    question: str
    images: int
    temperature: float
    begin: str


@dataclass
class Script:
    """Gives the answers of each kind of question in turn; the last one of a kind again and again."""

    answers: dict[str, list[str]]
    """By how the short prompt begins: Steps, Plan, Actions, Done."""
    asked: list[Asked] = field(default_factory=list)

    def write(
        self,
        question: str,
        images: Sequence[NDArray[np.uint8]],
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
        begin: str = "",
        mapped: bool = False,
    ) -> str:
        self.asked.append(Asked(question=question, images=len(images), temperature=temperature, begin=begin))
        left = self.answers[question.partition(":")[0]]
        return begin + (left.pop(0) if len(left) > 1 else left[0])

    def plain(self, text: str) -> str:
        return text

    def count(self, kind: str) -> int:
        """Return how often a kind of question was asked."""
        return sum(item.question.startswith(kind) for item in self.asked)


def scripted_policy(
    script: Script,
    *,
    views: tuple[str, ...] = ("top",),
    variant: Variant = "full",
    verifier: Verifier | None = None,
    decimals: int = 3,
) -> Vlm2VlaPolicy:
    """Return a policy of the ARX R5 for which `script` writes."""
    limits = Statistics.from_samples(SPEC.joint_names, np.stack([SPEC.lower, SPEC.upper]), "min_max")
    setup = RobotSetup(
        spec=SPEC,
        cameras=views,
        statistics=RobotStatistics(state=limits, action=limits),
        mode=ActionMode.CARTESIAN_POSE,
        step_period_s=1.0 / SPEC.rate_hz,
    )
    config = Vlm2VlaConfig(
        prompts="short",
        tell_pose=True,
        variant=variant,
        decimals=decimals,
        temperatures=Temperatures(subtasks=0.5, plan=0.0, actions=0.2),
        robots=(RobotMotion(robot=SPEC.name, open_m=0.08, closed_m=0.04),),
    )
    return Vlm2VlaPolicy(script, config, setup, verifier=verifier)


class Robot:
    """Arms that follow the controller's commands exactly, and a policy asked twice a second."""

    def __init__(self, policy: Vlm2VlaPolicy, *, refuse: Callable[[ActionChunk], bool] = lambda chunk: False) -> None:
        """`refuse` tells of chunks that never arrive."""
        self.policy, self.refuse = policy, refuse
        self.think_s = 0.0
        """How long answers to questions take: what plays goes on, and a chunk that is over by then is lost."""
        self.controller = ArmController(SPEC)
        self.positions, self.time_s = HOME.copy(), 10.0
        self.playing: ActionChunk | None = None
        self.faults: list[str] = []
        self.inferences: list[Inference] = []

    def observation(self, instruction: str = "Pick the card.") -> Observation:
        views = self.policy.setup.cameras
        image = np.full((24, 32, 3), len(self.inferences) % 256, np.uint8)
        return Observation(
            images=dict.fromkeys(views, image),
            image_stamps_s=dict.fromkeys(views, self.time_s),
            joint_positions=self.positions.copy(),
            instruction=instruction,
            stamp_s=self.time_s,
        )

    def ask(self, forced: str | None = None) -> Inference:
        """Infer once, play half a second."""
        asked = self.policy.counts["answers"]
        found = self.policy.infer(self.observation(), forced, self.playing)
        self.inferences.append(found)
        if self.policy.counts["answers"] > asked:
            self.play(self.think_s)
        if not self.refuse(found.chunk) and self.time_s < found.chunk.start_s + len(found.chunk.actions) / SPEC.rate_hz:
            fault = self.controller.accept(found.chunk, now_s=self.time_s, measured=self.positions)
            self.playing = self.playing if fault else found.chunk
            self.faults += [fault.message] if fault else []
        self.play(0.5)
        return found

    def play(self, seconds: float) -> None:
        """Let the controller play."""
        for _ in range(round(seconds * SPEC.rate_hz)):
            command = self.controller.step(now_s=self.time_s, measured=self.positions)
            self.positions = self.positions if command is None else command.positions
            self.time_s += 1.0 / SPEC.rate_hz

    def until_done(self, most: int = 80) -> Inference:
        """Ask until the policy says that it is done."""
        for _ in range(most):
            found = self.ask()
            if found.done:
                return found
        raise AssertionError(f"not done after {most} inferences: {found.reasoning.text}")
