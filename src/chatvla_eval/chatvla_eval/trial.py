# SPDX-License-Identifier: Apache-2.0
"""Run one trial and score it, whatever carries it: the same loop serves the simulated clock and ROS.

Times in s since the start of the trial, by the session's own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chatvla_control.scene import SceneTruth
from chatvla_eval.causes import failure_cause
from chatvla_eval.tasks import Task

__all__ = ["TrialResult", "TrialSession", "TrialSettings", "TrialSetup", "Watch", "run_trial", "trial_seed"]

_SEEDS_PER_RUN = 100_000


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


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One line of results.json."""

    index: int
    seed: int
    instruction: str
    scene: dict[str, Any]
    """What the task says of the scene: equation, cards, ..."""
    text: str
    """The scored reasoning: the first of the trial, written on the untouched scene."""
    answer: str
    texts: int
    """Number of distinct reasoning texts in the trial."""
    picked: str
    """Label of the object that was placed, or last held; empty when none was."""
    measures: dict[str, int]
    parts: dict[str, int]
    success: bool
    cause: str
    seconds: float
    subsets: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as results.json holds it."""
        return {
            "index": self.index,
            "seed": self.seed,
            "instruction": self.instruction,
            **self.scene,
            "text": self.text,
            "answer": self.answer,
            "texts": self.texts,
            "picked": self.picked,
            **self.measures,
            "parts": self.parts,
            "success": self.success,
            "cause": self.cause,
            "seconds": self.seconds,
            "subsets": list(self.subsets),
        }


@dataclass
class _Touched:
    """Which object was taken last, over the course of a trial."""

    name: str = ""
    placed_since_s: float | None = field(default=None)

    def update(self, truth: SceneTruth, elapsed_s: float) -> None:
        held = next((item.name for item in truth.objects if item.held), "")
        self.name = truth.placed or held or self.name
        if not truth.placed:
            self.placed_since_s = None
        elif self.placed_since_s is None:
            self.placed_since_s = elapsed_s


def trial_seed(seed: int, index: int) -> int:
    """Return the seed of trial `index` of the run with `seed`; runs of fewer than 100000 trials share none."""
    return seed * _SEEDS_PER_RUN + index


def run_trial(
    session: TrialSession,
    task: Task,
    setup: TrialSetup,
    *,
    settings: TrialSettings | None = None,
    on_frame: Callable[[float, NDArray[np.uint8], str], None] | None = None,
) -> TrialResult:
    """Return the scored result of one trial. `on_frame(elapsed_s, image, text)` is called about ten times a second.

    The session's own errors pass through.
    """
    limits = settings or TrialSettings()
    truth = session.reset(setup)
    touched = _Touched()
    session.start(setup, truth.instruction, limits.timeout_s)
    finished_s: float | None = None
    while True:
        watch = session.watch()
        touched.update(watch.truth, watch.elapsed_s)
        if on_frame is not None and (image := session.frame()) is not None:
            on_frame(watch.elapsed_s, image, watch.texts[-1] if watch.texts else "")
        if watch.finished and finished_s is None:
            finished_s = watch.elapsed_s
        if _is_over(watch, touched, finished_s, limits):
            break
    session.stop()
    return _result(task, setup, watch, touched.name, timed_out=watch.timed_out or finished_s is None)


def _is_over(watch: Watch, touched: _Touched, finished_s: float | None, limits: TrialSettings) -> bool:
    settled = finished_s is not None and watch.elapsed_s - finished_s >= limits.settle_s
    rested = touched.placed_since_s is not None and watch.elapsed_s - touched.placed_since_s >= limits.rest_s
    return bool(watch.error) or settled or rested or watch.elapsed_s >= limits.timeout_s


def _result(task: Task, setup: TrialSetup, watch: Watch, picked: str, *, timed_out: bool) -> TrialResult:
    truth = watch.truth
    text = watch.texts[0] if watch.texts else ""
    scored = task.score(text, truth)
    success = truth.success and not watch.error
    labels = {item.name: item.label for item in truth.objects}
    return TrialResult(
        index=setup.index,
        seed=setup.seed,
        instruction=truth.instruction,
        scene=task.describe(truth),
        text=text,
        answer=scored.answer,
        texts=len(watch.texts),
        picked=labels.get(picked, picked),
        measures=dict(scored.measures),
        parts=dict(scored.parts),
        success=success,
        cause=failure_cause(
            scored,
            success=success,
            picked=picked,
            target=truth.target,
            timed_out=timed_out,
            error=watch.error,
            refused=watch.refused,
        ),
        seconds=round(watch.elapsed_s, 3),
        subsets=tuple(truth.subsets),
    )
