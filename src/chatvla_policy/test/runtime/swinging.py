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
from chatvla_policy.processing.chunks import committed_rows, playable_rows

SPEC = robot_spec("arx_r5")
STEP_S = 0.02


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
        times = STEP_S * np.arange(self.steps)[:, None]
        width, speed = self._rng.uniform(0.1, 0.3, SPEC.width), self._rng.uniform(2.0, 5.0, SPEC.width)
        width = width * self._rng.choice([-1, 1], SPEC.width)
        rows = observation.joint_positions + width * (1.0 - np.cos(speed * times))
        if previous_chunk is not None and self.settings.commit_s > 0:
            kept = committed_rows(
                previous_chunk,
                start_s=observation.stamp_s,
                step_period_s=STEP_S,
                until_s=observation.stamp_s + self.settings.commit_s,
                horizon=self.steps,
            )
            if kept is not None and len(kept) > 1:
                # As a denoiser does: the committed part is kept, the rest continues from it.
                last, pace = kept[-1], (kept[-1] - kept[-2]) / STEP_S
                rest = STEP_S * np.arange(1, self.steps - len(kept) + 1)[:, None]
                fade = 0.2 * (1.0 - np.exp(-rest / 0.2))
                rows = np.concatenate([kept, last + pace * fade + width * (1.0 - np.cos(speed * rest))])
        rows = playable_rows(rows, SPEC, step_period_s=STEP_S)
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
