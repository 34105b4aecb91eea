# SPDX-License-Identifier: Apache-2.0
"""Say what a trial is run over: its setup, its limits, what is seen of it, and the session that carries it.

Times in s since the start of the trial unless they say otherwise. D joints in RobotSpec order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk
from chatvla_control.scene import SceneTruth

__all__ = ["TrialSession", "TrialSettings", "TrialSetup", "Watch"]


@dataclass(frozen=True, kw_only=True)
class TrialSetup:
    """What determines one trial."""

    index: int
    """Number of the trial in its run, from 0."""
    split: str
    seed: int
    swap: bool = False
    fonts: tuple[str, ...] = ()
    """Font files to draw with instead of the split's own; empty for the split's own."""
    forced_reasoning: str = ""
    """Text to act on instead of the policy's own; empty for its own."""
    force_correct: bool = False
    """Act on the right reasoning, written from the scene's truth: what remains is following and execution."""


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """When a trial ends; seconds."""

    timeout_s: float = 40.0
    settle_s: float = 0.5
    """Time between the policy's word that it is done and the scoring."""
    rest_s: float = 8.0
    """A card that rests on the board for this long ends the trial of a policy that never says it is done."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What a session saw up to now."""

    elapsed_s: float
    truth: SceneTruth
    texts: Sequence[str] = ()
    """Distinct reasoning texts of this trial, in order."""
    finished: bool = False
    """The policy says that it is done, or gave up."""
    timed_out: bool = False
    error: str = ""
    """Sentence of what broke; empty when nothing did."""
    refused: str = ""
    """Code of the newest refused chunk when no chunk was accepted after it; else empty."""
    seen: Sequence[SceneTruth] = ()
    """Truths since the last watch, oldest first, where the session has more than `truth`."""
    clock_s: float = 0.0
    """The session's own clock at `elapsed_s`; chunks carry times of this clock."""
    joints: NDArray[np.float64] | None = None
    """Measured positions [rad, m], shape (D,)."""
    motion: Sequence[tuple[float, NDArray[np.float64]]] = ()
    """Stamps and measured positions since the last watch, where the session has more than `joints`."""
    chunks: Sequence[ActionChunk] = ()
    """Chunks of this trial that the policy gave, in order."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What the policy counts of itself since its instruction (malformed answers, retries, ...); empty for most."""


class TrialSession(Protocol):
    """One bench with one policy, over any transport."""

    @property
    def policy_name(self) -> str:
        """Name of the policy, as results.json says it."""
        ...

    @property
    def privileged(self) -> bool:
        """Whether the policy sees the scene's truth."""
        ...

    @property
    def simulation(self) -> bool:
        """False on a real robot."""
        ...

    def reset(self, setup: TrialSetup) -> SceneTruth:
        """Build the trial's scene and return its truth."""
        ...

    def start(self, setup: TrialSetup, instruction: str, timeout_s: float) -> None:
        """Give the policy its instruction."""
        ...

    def watch(self) -> Watch:
        """Let a tenth of a second pass and return what is known."""
        ...

    def frame(self) -> NDArray[np.uint8] | None:
        """Return the newest camera image, shape (H, W, 3) RGB; None when there is none."""
        ...

    def stop(self) -> None:
        """Take the instruction back; the arms hold."""
        ...

    def close(self) -> None:
        """Free what the session holds."""
        ...
