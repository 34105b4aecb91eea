# SPDX-License-Identifier: Apache-2.0
"""Run a VLM2VLA checkpoint: subtasks once, then plan, actions, motion and verdict for each of them, all as text.

The arm rests while the model writes. What it wrote is turned into a chunk at the next observation, from where the arm
then is: thinking may take seconds, and a chunk begins at its observation. While a chunk plays, asking again gives what
is left of it. Units m, rad, s; D joints; A arms. (VLM2VLA, section 3.1)
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chatvla_control.cartesian import arm_models, tool_poses
from chatvla_control.cartesian_spec import POSE_WIDTH
from chatvla_control.contracts import ActionChunk, Inference, Observation, Reasoning, ReasoningSource
from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.checkpoint.setup import RobotSetup
from chatvla_policy.processing.answers import stated_answer
from chatvla_policy.runtime.inference import StageSeconds
from chatvla_policy.systems.chunk_making import timed_chunk
from chatvla_policy.systems.settings import check_observation
from chatvla_policy.vlm2vla.config import Vlm2VlaConfig
from chatvla_policy.vlm2vla.folder import load_vlm2vla
from chatvla_policy.vlm2vla.image_text_model import ImageTextModel
from chatvla_policy.vlm2vla.prompts import arm_of
from chatvla_policy.vlm2vla.questions import Counts, Questions, pose_text
from chatvla_policy.vlm2vla.text_forms import MalformedError
from chatvla_policy.vlm2vla.verifier import Verifier, VerifierError, VerifierSettings, make_verifier
from chatvla_policy.vlm2vla.waypoints import held_rows, played_rows

__all__ = ["Vlm2VlaPolicy"]

HOLD_S = 0.6
SETTLE_S = 0.2
"""Time at rest after a motion before the next image counts."""
OPEN_SHARE = 0.5
"""A gripper measured wider than this share of its opening for 1 is taken as open at the start."""


@dataclass(kw_only=True)
class _Progress:
    """Where an instruction stands."""

    instruction: str
    forced: str | None
    thought: str = ""
    subtasks: tuple[str, ...] = ()
    number: int = 0
    tries: int = 0
    """Times that the present subtask was tried again."""
    text: str = ""
    pending: tuple[int, NDArray[np.float64]] | None = None
    """Arm and actions that wait for the next observation."""
    chunk: ActionChunk | None = None
    before: NDArray[np.uint8] | None = None
    """First view when the subtask began."""
    moved: bool = False
    """A motion has been played and not been judged."""
    done: bool = False


class Vlm2VlaPolicy:
    """Policy of one checkpoint and one of its robots."""

    privileged = False
    system = "vlm2vla"

    def __init__(
        self,
        model: ImageTextModel,
        config: Vlm2VlaConfig,
        setup: RobotSetup,
        *,
        name: str = "vlm2vla",
        checkpoint_hash: str = "",
        seed: int = 0,
        verifier: Verifier | None = None,
    ) -> None:
        """Run `model` for the robot of `setup`. Raises CheckpointError for a robot without Cartesian data."""
        if not arm_models(setup.spec):
            raise CheckpointError(
                f"robot {setup.spec.name} has no Cartesian data; VLM2VLA moves tools (docs/robots.md)"
            )
        self.name, self.setup, self.checkpoint_hash, self.config = name, setup, checkpoint_hash, config
        try:
            self.motion = config.motion(setup.spec.name)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        self.image_size = (config.image_height, config.image_width)
        self.model, self.verifier = model, verifier
        self.counts = Counts()
        self._questions = Questions(model, config, setup.spec, counts=self.counts)
        self.stage_seconds = StageSeconds()
        self.reset(seed)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str = "cpu",
        seed: int = 0,
        robot: str | None = None,
        dtype: torch.dtype | None = None,
        verifier: VerifierSettings | None = None,
    ) -> Vlm2VlaPolicy:
        """Return the policy of a checkpoint folder; `verifier` None asks the environment (vlm2vla/verifier.py).

        Raises CheckpointError naming the first mismatch, ValueError for a verifier that cannot be.
        """
        parts, config, model = load_vlm2vla(folder, device=device, dtype=dtype)
        judge = make_verifier(verifier or VerifierSettings.from_environment(), model, size=_size(config))
        return cls(
            model,
            config,
            parts.robot(robot),
            name=Path(folder).resolve().name,
            checkpoint_hash=parts.sha256,
            seed=seed,
            verifier=judge,
        )

    def reset(self, seed: int) -> None:
        """Forget the instruction; draw further answers and ids from `seed`."""
        self._ids = random.Random(seed)
        self._questions.random = random.Random(seed)
        self._progress: _Progress | None = None
        self._grips: list[float] = []
        self.counts = self._questions.counts = Counts()

    def infer(
        self,
        observation: Observation,
        forced_reasoning: str | None = None,
        previous_chunk: ActionChunk | None = None,
    ) -> Inference:
        """Return what is thought now and a chunk: of the present motion, or one that holds still.

        `forced_reasoning` stands in for the model's own thought before its subtasks. Raises ObservationError, and
        MalformedError when no list of subtasks can be read.
        """
        check_observation(observation, self.setup)
        started = time.perf_counter()
        progress = self._progress
        if progress is None or (progress.instruction, progress.forced) != (observation.instruction, forced_reasoning):
            progress = self._progress = _Progress(instruction=observation.instruction, forced=forced_reasoning)
        if not self._grips:
            self._grips = [self._grip(arm.gripper, observation) for arm in arm_models(self.setup.spec)]
        if progress.pending is not None:
            return self._moving(progress, observation)
        if progress.chunk is not None and (left := self._left(progress.chunk, observation)) is not None:
            return Inference(reasoning=self._reasoning(progress, observation, reused=True), chunk=left)
        progress.chunk = None
        wrote = self._think(progress, observation)
        seconds = time.perf_counter() - started
        self.stage_seconds = StageSeconds(reasoning=seconds)
        reasoning = self._reasoning(progress, observation, reused=not wrote, seconds=seconds)
        return Inference(reasoning=reasoning, chunk=self._holding(observation, reasoning), done=progress.done)

    def ask(self, question: str, images: Mapping[str, NDArray[np.uint8]] | None = None) -> str:
        """Return the answer to a question about images (RGB, any views), or about none: the model still chats."""
        return self.model.write(
            question,
            list((images or {}).values()),
            temperature=0.0,
            top_p=1.0,
            max_new_tokens=self.config.max_new_tokens,
            seed=0,
        ).strip()

    def _think(self, progress: _Progress, observation: Observation) -> bool:
        """Judge what was moved and write what comes next; return whether a text was written."""
        images = [observation.images[view] for view in self.setup.cameras]
        if progress.moved:
            self._judge(progress, images[0])
        if progress.done:
            return False
        if self.config.variant == "no_reasoning":
            self._write_direct(progress, images, observation)
            return True
        if not progress.subtasks:
            thought, subtasks = self._questions.subtasks(progress.instruction, images, thought=progress.forced)
            progress.thought, progress.subtasks = thought, subtasks
        subtask = progress.subtasks[progress.number]
        arm = arm_of(self.setup.spec, subtask)
        pose = self._pose(arm, observation)
        step = f"Step {progress.number + 1} of {len(progress.subtasks)}: {subtask}."
        try:
            plan = self._questions.plan(subtask, images, pose=pose)
            actions = self._questions.actions(subtask, plan, images, pose=pose)
        except MalformedError as error:
            progress.text = f"{progress.thought} {step} Left out: {error}".strip()
            self._go_on(progress)
            return True
        progress.text = f"{progress.thought} {step} {plan}".strip()
        progress.pending, progress.before = (arm, actions), images[0]
        return True

    def _write_direct(self, progress: _Progress, images: list[NDArray[np.uint8]], observation: Observation) -> None:
        """Write actions straight from the task; an empty list ends it. One unreadable answer holds for one cycle."""
        # No subtask says which arm is meant: the prompt tells the first one's place.
        pose = self._pose(0, observation)
        try:
            arm, actions = self._questions.direct(progress.instruction, images, pose=pose)
        except MalformedError as error:
            progress.text = f"Left out: {error}"
            return
        progress.text = f"{len(actions)} actions."
        progress.done = not len(actions)
        if len(actions):
            progress.pending, progress.before = (arm, actions), images[0]

    def _judge(self, progress: _Progress, after: NDArray[np.uint8]) -> None:
        """Go on to the next subtask, or stay where the verifier says that this one failed."""
        progress.moved = False
        if self.config.variant == "no_reasoning":
            return
        success = True
        if self.verifier is not None and progress.before is not None:
            following = (*progress.subtasks, "none")[progress.number + 1]
            question = self._questions.prompts.fill(
                "verify", subtask=progress.subtasks[progress.number], next=following
            )
            try:
                verdict = self.verifier.verdict(question, [progress.before, after], seed=self._questions.seed())
                self.counts.verdicts += 1
                success = verdict.success
            except VerifierError:
                self.counts.verifier_failures += 1
        if not success and progress.tries < self.config.max_retries:
            progress.tries += 1
            self.counts.retries += 1
            return
        self._go_on(progress)

    def _go_on(self, progress: _Progress) -> None:
        progress.tries = 0
        if progress.number + 1 == len(progress.subtasks):
            progress.done = True
        else:
            progress.number += 1

    def _moving(self, progress: _Progress, observation: Observation) -> Inference:
        """Return the chunk of the pending actions, from where the arm is now."""
        assert progress.pending is not None
        (arm, actions), progress.pending = progress.pending, None
        spec, period_s = self.setup.spec, self.setup.step_period_s
        played = played_rows(
            actions,
            spec=spec,
            arm=arm,
            positions=observation.joint_positions,
            motion=self.motion,
            speed_m_s=self.config.speed_m_s,
            grip_s=self.config.grip_s,
            period_s=period_s,
            gripper_m=self._grips[arm],
        )
        self.counts.filtered += played.filtered
        self._grips[arm] = float(played.rows[-1, arm_models(spec)[arm].column + POSE_WIDTH - 1])
        rest = np.repeat(played.rows[-1:], math.ceil(SETTLE_S / period_s), axis=0)
        reasoning = self._reasoning(progress, observation, reused=True)
        chunk = self._chunk(observation, np.concatenate([played.rows, rest]), reasoning, keep=arm)
        progress.chunk, progress.moved = chunk, True
        return Inference(reasoning=reasoning, chunk=chunk)

    def _left(self, chunk: ActionChunk, observation: Observation) -> ActionChunk | None:
        """Return what is left of a motion at the observation's time; None when it is over."""
        first = int((observation.stamp_s - chunk.start_s) / chunk.step_period_s + 1e-9)
        if first >= len(chunk.actions) - 1:
            return None
        return replace(
            chunk,
            actions=chunk.actions[first:],
            stamp_s=observation.stamp_s,
            start_s=chunk.start_s + first * chunk.step_period_s,
        )

    def _holding(self, observation: Observation, reasoning: Reasoning) -> ActionChunk:
        count = math.ceil(HOLD_S / self.setup.step_period_s)
        rows = held_rows(self.setup.spec, observation.joint_positions, count=count)
        return self._chunk(observation, rows, reasoning)

    def _chunk(
        self, observation: Observation, rows: NDArray[np.float64], reasoning: Reasoning, *, keep: int | None = None
    ) -> ActionChunk:
        """Return the timed chunk; grippers of all arms but `keep` stay as they were last commanded."""
        rows = rows.copy()
        for number, arm in enumerate(arm_models(self.setup.spec)):
            if number != keep:
                rows[:, arm.column + POSE_WIDTH - 1] = self._grips[number]
        return timed_chunk(
            self.setup,
            observation,
            rows,
            reasoning,
            chunk_id=self._new_id(),
            checkpoint_hash=self.checkpoint_hash,
        )

    def _reasoning(
        self, progress: _Progress, observation: Observation, *, reused: bool, seconds: float = 0.0
    ) -> Reasoning:
        source = ReasoningSource.REUSED if reused else ReasoningSource.GENERATED
        return Reasoning(
            id=self._new_id(),
            text=progress.text,
            stamp_s=observation.stamp_s,
            source=ReasoningSource.FORCED if progress.forced is not None else source,
            policy=self.name,
            instruction=observation.instruction,
            answer=stated_answer(progress.text),
            seconds=seconds,
        )

    def _pose(self, arm: int, observation: Observation) -> str:
        """Return what the prompts tell of the tool; empty unless the config says so."""
        if not self.config.tell_pose:
            return ""
        place = tool_poses(self.setup.spec, observation.joint_positions)[arm][:3, 3]
        return pose_text(place, self._grips[arm] > 0.5 * (self.motion.open_m + self.motion.closed_m))

    def _grip(self, gripper: int, observation: Observation) -> float:
        """Return what a gripper is taken to be commanded to at the start [m]."""
        opening = float(observation.joint_positions[gripper])
        return self.motion.closed_m if opening < OPEN_SHARE * self.motion.open_m else opening

    def _new_id(self) -> str:
        return f"{self._ids.getrandbits(64):016x}"


def _size(config: Vlm2VlaConfig) -> tuple[int, int]:
    return config.image_width, config.image_height
