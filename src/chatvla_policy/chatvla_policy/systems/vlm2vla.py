# SPDX-License-Identifier: Apache-2.0
"""Run a VLM2VLA checkpoint: subtasks once, then plan, actions, motion and verdict for each of them, all as text.

The arm rests while the model writes. What it wrote is turned into a chunk at the next observation, from where the arm
then is: thinking may take seconds, and a chunk begins at its observation. While a chunk plays, asking again gives what
is left of it. What still plays of another instruction or text is stopped first: what is written is about where the arm
is. Units m, rad, s; D joints; A arms. (VLM2VLA, section 3.1)
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chatvla_control.cartesian import arm_models, tool_poses
from chatvla_control.contracts import ActionChunk, Inference, Observation, Reasoning, ReasoningSource
from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.checkpoint.setup import RobotSetup
from chatvla_policy.naming import policy_name
from chatvla_policy.processing.answers import stated_answer
from chatvla_policy.runtime.inference import StageSeconds
from chatvla_policy.runtime.seam import moves_on
from chatvla_policy.systems.chunk_making import timed_chunk
from chatvla_policy.systems.settings import check_observation
from chatvla_policy.vlm2vla.config import Temperatures, Vlm2VlaConfig
from chatvla_policy.vlm2vla.folder import load_vlm2vla
from chatvla_policy.vlm2vla.mover import Mover
from chatvla_policy.vlm2vla.progress import Progress
from chatvla_policy.vlm2vla.prompts import arm_of
from chatvla_policy.vlm2vla.questions import Counts, Questions, pose_text
from chatvla_policy.vlm2vla.text_forms import MalformedError
from chatvla_policy.vlm2vla.verifier import Verifier, VerifierError, VerifierSettings, make_verifier
from chatvla_policy.vlm2vla.waypoints import held_rows
from chatvla_policy.vlm2vla.writer import Images, Writer

__all__ = ["Vlm2VlaPolicy"]

HOLD_S = 0.1
"""Length of a chunk that holds. It is over when the next motion is ready, which then begins with its first row however
late it is: a node begins a chunk later only where nothing is being played."""
STOP_S, REST_RAD = 0.5, 0.01
"""Length of a chunk that stops what else is being played, and how little the joints move between two observations."""


class Vlm2VlaPolicy:
    """Policy of one checkpoint and one of its robots."""

    privileged = False
    system = "vlm2vla"

    def __init__(
        self,
        model: Writer,
        config: Vlm2VlaConfig,
        setup: RobotSetup,
        *,
        name: str = "vlm2vla",
        checkpoint_hash: str = "",
        seed: int = 0,
        verifier: Verifier | None = None,
    ) -> None:
        """Let `model` write for the robot of `setup`. Raises CheckpointError for a robot without Cartesian data."""
        if not arm_models(setup.spec):
            raise CheckpointError(
                f"robot {setup.spec.name} has no Cartesian data; VLM2VLA moves tools (docs/robots.md)"
            )
        self.name, self.setup, self.checkpoint_hash, self.config = name, setup, checkpoint_hash, config
        try:
            motion = config.motion(setup.spec.name)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        self._mover = Mover(setup, motion, speed_m_s=config.speed_m_s, grip_s=config.grip_s)
        self.image_size = (config.image_height, config.image_width)
        self.model, self.verifier = model, verifier
        self._questions = Questions(model, config, setup.spec, counts=Counts())
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
        temperatures: Temperatures | None = None,
    ) -> Vlm2VlaPolicy:
        """Return the policy of a checkpoint folder.

        `verifier` None asks the environment (vlm2vla/verifier.py), and so does `temperatures` None
        (CHATVLA_TEMPERATURES), then the checkpoint. Raises CheckpointError naming the first mismatch, ValueError for a
        verifier or temperatures that cannot be.
        """
        temperatures = temperatures or Temperatures.from_environment(os.environ)
        parts, config, model = load_vlm2vla(folder, device=device, dtype=dtype)
        config = replace(config, temperatures=temperatures or config.temperatures)
        judge = make_verifier(
            verifier or VerifierSettings.from_environment(),
            model,
            size=(config.image_width, config.image_height),
            temperature=config.temperatures.verify,
        )
        return cls(
            model,
            config,
            parts.robot(robot),
            name=policy_name(folder),
            checkpoint_hash=parts.sha256,
            seed=seed,
            verifier=judge,
        )

    def reset(self, seed: int) -> None:
        """Forget the instruction; draw further answers and ids from `seed`."""
        self._ids = random.Random(seed)
        self._questions.random = random.Random(seed)
        self._progress: Progress | None = None
        self._stopping: NDArray[np.float64] | None = None
        self._mover.forget()
        self._questions.counts = Counts()

    @property
    def counts(self) -> Mapping[str, int]:
        """What happened since the last reset, by name: malformed answers, retries, ... (vlm2vla/questions.py)."""
        return asdict(self._questions.counts)

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
            progress = self._progress = Progress(instruction=observation.instruction, forced=forced_reasoning)
        self._mover.see(observation.joint_positions)
        if progress.pending is not None:
            return self._moving(progress, observation)
        if progress.motion is not None and (left := self._left(progress, observation, previous_chunk)) is not None:
            return Inference(reasoning=self._reasoning(progress, observation, reused=True), chunk=left)
        if not self._rests(observation, previous_chunk):
            reasoning = self._reasoning(progress, observation, reused=False)
            return Inference(reasoning=reasoning, chunk=self._holding(observation, reasoning, seconds=STOP_S))
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

    def _think(self, progress: Progress, observation: Observation) -> bool:
        """Judge what was moved and write what comes next; return whether a text was written."""
        images = [observation.images[view] for view in self.setup.cameras]
        if progress.motion is not None:
            self._judge(progress, images, observation)
        if progress.done:
            return False
        if self.config.variant == "no_reasoning":
            self._write_direct(progress, images)
            return True
        if not progress.subtasks:
            thought, subtasks = self._questions.subtasks(progress.instruction, images, thought=progress.forced)
            progress.thought, progress.subtasks = thought, subtasks
        subtask = progress.subtasks[progress.number]
        arm = arm_of(self.setup.spec, subtask)
        pose, rounded = self._pose(arm, observation)
        step = f"Step {progress.number + 1} of {len(progress.subtasks)}: {subtask}."
        try:
            plan = self._questions.plan(subtask, images, pose=pose)
            actions = self._questions.actions(subtask, plan, images, pose=pose)
            # A way counts from the place that was told; where there is none, the tool stays.
            actions[0, :3] += np.where(actions[:, :3].any(axis=0), rounded, 0.0)
        except MalformedError as error:
            progress.text = f"{progress.thought} {step} Left out: {error}".strip()
            progress.go_on()
            return True
        progress.text = f"{progress.thought} {step} {plan}".strip()
        progress.pending, progress.before = (arm, actions), images
        return True

    def _write_direct(self, progress: Progress, images: Images) -> None:
        """Write actions straight from the task; an empty list ends it. One unreadable answer holds for one cycle."""
        try:
            arm, actions = self._questions.direct(progress.instruction, images)
        except MalformedError as error:
            progress.text = f"Left out: {error}"
            return
        progress.text = f"{len(actions)} actions."
        progress.done = not len(actions)
        if len(actions):
            progress.pending, progress.before = (arm, actions), images

    def _judge(self, progress: Progress, after: Images, observation: Observation) -> None:
        """Go on to the next subtask; stay where the arm is not at the motion's end, or a verifier says it failed."""
        assert progress.motion is not None
        motion, progress.motion = progress.motion, None
        success = self._mover.arrived(motion, observation.joint_positions)
        self._questions.counts.not_reached += not success
        if self.config.variant == "no_reasoning":
            return
        if success and self.verifier is not None:
            success = self._verdict(self.verifier, progress, after)
        self._again_or_on(progress, success=success)

    def _verdict(self, verifier: Verifier, progress: Progress, after: Images) -> bool:
        """Return whether the verifier sees the present subtask done; without a verdict it counts as done."""
        following = (*progress.subtasks, "none")[progress.number + 1]
        question = self._questions.prompts.fill("verify", subtask=progress.subtasks[progress.number], next=following)
        counts = self._questions.counts
        try:
            verdict = verifier.verdict(question, [*progress.before, *after], seed=self._questions.seed())
        except VerifierError:
            counts.verifier_failures += 1
            return True
        counts.verdicts += 1
        return verdict.success

    def _again_or_on(self, progress: Progress, *, success: bool) -> None:
        if success or not progress.try_again(self.config.max_retries):
            progress.go_on()
        else:
            self._questions.counts.retries += 1

    def _moving(self, progress: Progress, observation: Observation) -> Inference:
        """Return the chunk of the pending actions, from where the arm is now; one that holds where none can be gone."""
        assert progress.pending is not None
        (arm, actions), progress.pending = progress.pending, None
        reasoning = self._reasoning(progress, observation, reused=True)
        progress.motion, filtered = self._mover.motion(
            arm, actions, observation, lambda rows: self._chunk(observation, rows, reasoning)
        )
        self._questions.counts.filtered += filtered
        if progress.motion is not None:
            return Inference(reasoning=reasoning, chunk=progress.motion.chunk)
        self._questions.counts.not_reached += 1
        if self.config.variant != "no_reasoning":
            self._again_or_on(progress, success=False)
        return Inference(reasoning=reasoning, chunk=self._holding(observation, reasoning))

    def _left(self, progress: Progress, observation: Observation, playing: ActionChunk | None) -> ActionChunk | None:
        """Return what is left of a motion at the observation's time; None when it is over, or was never played."""
        assert progress.motion is not None
        if playing is not None and playing.id != progress.motion.chunk.id:
            return None
        if playing is not None:
            progress.motion = progress.motion.as_played(playing)
        return progress.motion.left(observation.stamp_s)

    def _rests(self, observation: Observation, playing: ActionChunk | None) -> bool:
        """Return whether the arm rests, by what is being played and, once that was stopped, by the joints."""
        positions, before = observation.joint_positions, self._stopping
        rotary = self.setup.spec.rotary
        moves = before is not None and bool((np.abs(positions - before)[rotary] > REST_RAD).any())
        moves |= playing is not None and moves_on(playing, observation.stamp_s)
        self._stopping = positions if moves else None
        return not moves

    def _holding(self, observation: Observation, reasoning: Reasoning, *, seconds: float = HOLD_S) -> ActionChunk:
        count = math.ceil(seconds / self.setup.step_period_s)
        rows = held_rows(self.setup.spec, observation.joint_positions, count=count)
        return self._chunk(observation, self._mover.held(rows), reasoning)

    def _chunk(self, observation: Observation, rows: NDArray[np.float64], reasoning: Reasoning) -> ActionChunk:
        return timed_chunk(
            self.setup,
            observation,
            rows,
            reasoning,
            chunk_id=self._new_id(),
            checkpoint_hash=self.checkpoint_hash,
        )

    def _reasoning(
        self, progress: Progress, observation: Observation, *, reused: bool, seconds: float = 0.0
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

    def _pose(self, arm: int, observation: Observation) -> tuple[str, NDArray[np.float64]]:
        """Return what the prompts tell of the tool and how far it is from where they tell it [m], shape (3,).

        The text is empty and the distance nought unless the config tells a place.
        """
        if not self.config.tell_pose:
            return "", np.zeros(3)
        place = tool_poses(self.setup.spec, observation.joint_positions)[arm][:3, 3]
        decimals = self.config.decimals
        text = pose_text(place, self._mover.is_open(arm), decimals=decimals)
        return text, np.round(place, decimals) - place

    def _new_id(self) -> str:
        return f"{self._ids.getrandbits(64):016x}"
