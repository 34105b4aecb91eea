# SPDX-License-Identifier: Apache-2.0
"""Say what a task must give to be scored: its measures, its scores of one reasoning text, and why a trial failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from chatvla_control.scene import SceneTruth

__all__ = ["ScoredReasoning", "Task", "UnknownTaskError"]


class UnknownTaskError(ValueError):
    """No task of that name; the message lists those that exist."""


@dataclass(frozen=True, kw_only=True)
class ScoredReasoning:
    """Scores of one reasoning text against the scene's truth."""

    measures: Mapping[str, int]
    """Points per measure of the task, such as {"ocr": 4, "math": 2}."""
    parts: Mapping[str, int]
    """Points per single criterion, such as {"numbers": 1, "cards": 1, "operator": 2, "answer": 1, "choice": 1}."""
    answer: str
    """The answer that the text states; empty when it states none."""
    perceived: bool
    """The text states everything right that must be seen."""
    computed: bool
    """The text states the right answer."""
    chosen: bool
    """The text chooses the right object."""
    choice: str = ""
    """Name of the object that the text chooses, right or wrong; empty when it names none that is there."""


class Task(Protocol):
    """One task: how it is scored. Implementations hold no state."""

    name: str
    measures: Mapping[str, int]
    """Most points per measure, in the order of tables."""
    splits: tuple[str, ...]
    timeout_s: float
    """Longest trial unless another is asked for [s]."""
    in_steps: bool
    """Whether one object is taken after another: the first text is about the first of them, not about the last."""

    def score(self, text: str, truth: SceneTruth) -> ScoredReasoning:
        """Return the scores of the reasoning `text` in the scene `truth`. Never fails on any text."""
        ...

    def outcome(self, truth: SceneTruth) -> Mapping[str, int]:
        """Return measures that the scene's last truth gives and no text does, such as steps done; most have none."""
        ...

    def describe(self, truth: SceneTruth) -> dict[str, Any]:
        """Return what results.json says of the scene: equation or instruction, objects with their places."""
        ...
