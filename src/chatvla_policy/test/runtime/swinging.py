# SPDX-License-Identifier: Apache-2.0
"""A policy without a network: it swings smoothly about the observed pose and keeps what is committed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chatvla_control.arm_port import JointState
from chatvla_control.contracts import (
    ActionChunk,
    ActionMode,
    Inference,
    Observation,
    Reasoning,
    ReasoningSource,
)
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.processing.chunks import committed_rows
from chatvla_policy.runtime.seam_trial import STEP_S, swing_rows

SPEC = robot_spec("arx_r5")


@dataclass(frozen=True, kw_only=True)
class Settings:
    commit_s: float = 0.0


class SwingingPolicy:
    """Each inference draws its own swing: two chunks never agree on the future by themselves."""

    name, privileged = "swinging", False

    def __init__(self, *, steps: int = 75) -> None:
        self.steps, self.settings, self.error, self.bad, self.done = steps, Settings(), "", False, False
        self.anew, self.reuse = 0, False
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._rng, self._count = np.random.default_rng(seed), 0

    def forget_reasoning(self) -> None:
        self.anew += 1

    def infer(
        self,
        observation: Observation,
        forced_reasoning: str | None = None,
        previous_chunk: ActionChunk | None = None,
    ) -> Inference:
        if self.error:
            raise RuntimeError(self.error)
        self._count += 1
        kept = None
        if previous_chunk is not None and self.settings.commit_s > 0:
            kept = committed_rows(
                previous_chunk,
                start_s=observation.stamp_s,
                step_period_s=STEP_S,
                until_s=observation.stamp_s + self.settings.commit_s,
                horizon=self.steps,
            )
        rows = swing_rows(SPEC, observation.joint_positions, self._rng, kept=kept, steps=self.steps)
        if self.bad:
            rows[3, 2] = np.nan
        source = ReasoningSource.REUSED if self.reuse and self._count > 1 else ReasoningSource.GENERATED
        source = source if forced_reasoning is None else ReasoningSource.FORCED
        reasoning = Reasoning(
            id=f"r{self._count}",
            text=forced_reasoning or f"I should swing for: {observation.instruction}",
            stamp_s=observation.stamp_s,
            source=source,
            policy=self.name,
            instruction=observation.instruction,
        )
        chunk = ActionChunk(
            id=f"c{self._count}",
            actions=rows,
            joint_names=SPEC.joint_names,
            robot=SPEC.name,
            mode=ActionMode.JOINT_POSITION,
            stamp_s=observation.stamp_s,
            start_s=observation.stamp_s,
            step_period_s=STEP_S,
            valid_until_s=observation.stamp_s + STEP_S * len(rows),
            policy=self.name,
            reasoning_id=reasoning.id,
            reasoning_source=source,
        )
        return Inference(reasoning=reasoning, chunk=chunk, done=self.done)


def joint_state(
    stamp_s: float, positions: np.ndarray | None = None, velocities: np.ndarray | None = None
) -> JointState:
    zeros = np.zeros(SPEC.width)
    return JointState(
        positions=np.array(SPEC.home) if positions is None else positions,
        velocities=zeros if velocities is None else velocities,
        efforts=zeros,
        stamp_s=stamp_s,
    )


def picture(seed: int = 0, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
