# SPDX-License-Identifier: Apache-2.0
"""Say what flows between cameras, policies, drivers and scorers. No ROS, no torch.

Units: positions in rad (rotary joints) and m (gripper opening), times in s of one clock (ROS time or simulated time).
Shapes: H, W image height and width; T chunk steps; D action width; L mixture layers; E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ActionChunk",
    "ActionMode",
    "BoundingBox",
    "Inference",
    "InputKind",
    "Observation",
    "Policy",
    "Reasoning",
    "ReasoningSource",
    "RouterStats",
]


class ActionMode(IntEnum):
    """What one row of an action chunk means; values equal the constants of ActionChunk.msg."""

    JOINT_POSITION = 0
    CARTESIAN_POSE = 1


class ReasoningSource(IntEnum):
    """Where a reasoning text came from; values equal the constants of Reasoning.msg."""

    GENERATED = 0
    FORCED = 1
    REUSED = 2
    SCRIPTED = 3


class InputKind(IntEnum):
    """What the routed tokens were; values equal the constants of RouterStats.msg."""

    UNDERSTANDING = 0
    ROBOT = 1


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a policy sees at one time: images, joint positions and the instruction, and nothing of the scene's truth."""

    images: Mapping[str, NDArray[np.uint8]]
    """RGB image per view, shape (H, W, 3)."""
    image_stamps_s: Mapping[str, float]
    """Time of each view's image."""
    joint_positions: NDArray[np.float64]
    """Measured positions in RobotSpec order, shape (D,), rad and m."""
    instruction: str
    stamp_s: float
    """Time of the observation: the oldest of its parts."""


@dataclass(frozen=True, kw_only=True)
class BoundingBox:
    """One labelled pixel rectangle in one view."""

    label: str
    view: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """What a policy thinks: text, boxes and the answer read from it."""

    id: str
    text: str
    stamp_s: float
    """Time of the observation the text is about."""
    source: ReasoningSource
    policy: str
    privileged: bool = False
    instruction: str = ""
    answer: str = ""
    boxes: tuple[BoundingBox, ...] = ()
    seconds: float = 0.0
    """Wall-clock time spent on the text."""


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """Targets on a fixed time grid: row k of `actions` is the target at `start_s + k * step_period_s`."""

    id: str
    actions: NDArray[np.float64]
    """Shape (T, D): rad and m in JOINT_POSITION; per arm xyz [m], 6D rotation, gripper [m] in CARTESIAN_POSE."""
    joint_names: tuple[str, ...]
    robot: str
    mode: ActionMode
    stamp_s: float
    """Time of the observation the chunk was computed from."""
    start_s: float
    step_period_s: float
    valid_until_s: float
    """No row is played after this time."""
    policy: str
    privileged: bool = False
    reasoning_id: str = ""
    reasoning_source: ReasoningSource = ReasoningSource.GENERATED
    checkpoint_hash: str = ""
    statistics_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class RouterStats:
    """How the mixture-of-experts router spread tokens over experts in one inference."""

    stamp_s: float
    kind: InputKind
    top_k: int
    tokens: int
    load: NDArray[np.float32]
    """Share of routed token slots, shape (L, E); rows sum to 1."""
    entropy_bits: NDArray[np.float32]
    """Entropy of the load per layer, shape (L,)."""
    top_ratio: NDArray[np.float32]
    """Busiest over idlest expert's load per layer, shape (L,)."""
    drift: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """Total variation from the checkpoint's reference load, shape (L,) or empty."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """One answer of a policy: its reasoning, its chunk, and router statistics when it has a router."""

    reasoning: Reasoning
    chunk: ActionChunk
    router: RouterStats | None = None
    done: bool = False
    """True when the policy itself judges that the instruction is fulfilled."""


class Policy(Protocol):
    """Anything that turns observations into reasoning and chunks: a checkpoint or the scripted expert."""

    name: str
    privileged: bool

    def reset(self, seed: int) -> None:
        """Forget the last instruction; draw further randomness from `seed`."""
        ...

    def infer(
        self,
        observation: Observation,
        forced_reasoning: str | None = None,
        previous_chunk: ActionChunk | None = None,
    ) -> Inference:
        """Return reasoning and chunk for `observation`.

        `forced_reasoning` replaces the policy's own text; `previous_chunk` is what is being played meanwhile.
        """
        ...
