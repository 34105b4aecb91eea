# SPDX-License-Identifier: Apache-2.0
"""Ask VLM2VLA's questions, each with its own prompt, temperature and strict reader, a bounded number of times.

A malformed answer is asked for again with another seed and counted; after `max_tries` the question is given up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from chatvla_control.robot_spec import RobotSpec
from chatvla_policy.vlm2vla.config import Vlm2VlaConfig
from chatvla_policy.vlm2vla.prompts import PROMPTS, arm_of, arms_sentence
from chatvla_policy.vlm2vla.text_forms import MalformedError, parse_actions, parse_subtasks, place_text
from chatvla_policy.vlm2vla.writer import Images, Writer

__all__ = ["Counts", "Questions", "pose_text"]

T = TypeVar("T")


@dataclass(kw_only=True)
class Counts:
    """What happened since the last reset."""

    answers: int = 0
    """Questions that got a readable answer."""
    malformed: int = 0
    """Answers that could not be read and were asked for again."""
    given_up: int = 0
    """Questions without a readable answer in all tries."""
    filtered: int = 0
    """Actions that were cut short or left out: into table or wall, or out of reach."""
    not_reached: int = 0
    """Motions that could not be begun, or at whose end the arm was not."""
    verdicts: int = 0
    retries: int = 0
    """Subtasks tried again: on a verdict, or because the arm was not there."""
    verifier_failures: int = 0
    """Verdicts that could not be had."""


def pose_text(place_m: NDArray[np.float64], opened: bool, *, decimals: int = 3) -> str:
    """Return the tool's place [m] and gripper as the prompts tell it where the config says so."""
    return f" Tool at [{place_text(place_m, decimals=decimals)}, {float(opened):.1f}]."


class Questions:
    """The questions of one policy."""

    def __init__(self, model: Writer, config: Vlm2VlaConfig, spec: RobotSpec, *, counts: Counts) -> None:
        self.model, self.config, self.spec, self.counts = model, config, spec, counts
        self.prompts = PROMPTS[config.prompts]
        self.random = random.Random(0)

    def subtasks(self, task: str, images: Images, *, thought: str | None = None) -> tuple[str, tuple[str, ...]]:
        """Return the thought and the subtasks; a given `thought` begins the answer.

        Raises MalformedError when none can be read.
        """

        def read(text: str) -> tuple[str, tuple[str, ...]]:
            found = parse_subtasks(text)
            for subtask in found[1]:
                arm_of(self.spec, subtask)
            return found

        question = self.prompts.fill("subtasks", task=task, arms=arms_sentence(self.spec))
        begin = "" if thought is None else f"{self.model.plain(thought.replace('[', '(').strip())} ["
        return self._asked(question, images, read, temperature=self.config.temperatures.subtasks, begin=begin)

    def plan(self, subtask: str, images: Images, *, pose: str) -> str:
        """Return the motion plan of a subtask: any text, cut to its first 400 characters."""
        question = self.prompts.fill("plan", subtask=subtask, pose=pose)
        return self._asked(question, images, lambda text: text.strip()[:400], temperature=self.config.temperatures.plan)

    def actions(self, subtask: str, plan: str, images: Images, *, pose: str) -> NDArray[np.float64]:
        """Return the actions of a subtask, shape (N, 4), N at least 1. Raises MalformedError."""

        def read(text: str) -> NDArray[np.float64]:
            found = parse_actions(text)
            if not len(found):
                raise MalformedError("the list of actions is empty")
            return found

        question = self.prompts.fill("actions", subtask=subtask, plan=plan, pose=pose)
        return self._asked(question, images, read, temperature=self.config.temperatures.actions, mapped=True)

    def direct(self, task: str, images: Images) -> tuple[int, NDArray[np.float64]]:
        """Return arm and actions straight from the task, shape (N, 4); N = 0 says that the task is done."""

        def read(text: str) -> tuple[int, NDArray[np.float64]]:
            arm = arm_of(self.spec, text.strip())
            return arm, parse_actions(text.partition(":")[2] if len(self.spec.arms) > 1 else text)

        question = self.prompts.fill("direct", task=task, arms=arms_sentence(self.spec))
        return self._asked(question, images, read, temperature=self.config.temperatures.actions, mapped=True)

    def seed(self) -> int:
        """Return the next seed."""
        return self.random.getrandbits(31)

    def _asked(
        self,
        question: str,
        images: Images,
        read: Callable[[str], T],
        *,
        temperature: float,
        begin: str = "",
        mapped: bool = False,
    ) -> T:
        options: dict[str, Any] = {"top_p": self.config.top_p, "max_new_tokens": self.config.max_new_tokens}
        last: MalformedError | None = None
        for attempt in range(self.config.max_tries):
            # The likeliest answer would be malformed again: later tries are drawn.
            heat = temperature if temperature or not attempt else 0.5
            text = self.model.write(
                question, images, temperature=heat, seed=self.seed(), begin=begin, mapped=mapped, **options
            )
            try:
                found = read(text)
            except MalformedError as error:
                self.counts.malformed += 1
                last = error
                continue
            self.counts.answers += 1
            return found
        self.counts.given_up += 1
        raise MalformedError(f"no readable answer in {self.config.max_tries} tries; the last: {last}")
