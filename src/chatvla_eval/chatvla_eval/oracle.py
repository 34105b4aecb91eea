# SPDX-License-Identifier: Apache-2.0
"""Write what a policy should think, from the scene's truth: for interventions, never for a policy's own run.

A task is one entry in ORACLES: `module:function`, called with the truth and the object to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from chatvla_control.scene import SceneObject, SceneTruth

__all__ = ["ORACLES", "NoOracleError", "reasoning_for", "right_reasoning"]

ORACLES: Mapping[str, str] = {
    "math_match": "chatvla_sim.math_match.reasoning:reasoning_text",
    "toy_placement": "chatvla_sim.toy_placement.reasoning:reasoning_about",
}


class NoOracleError(ValueError):
    """The task has nobody who writes its right reasoning; the message says which tasks have."""


def right_reasoning(truth: SceneTruth) -> str:
    """Return the reasoning that leads to the right object of the scene. Raises NoOracleError."""
    return reasoning_for(truth, next(item for item in truth.objects if item.name == truth.target))


def reasoning_for(truth: SceneTruth, chosen: SceneObject) -> str:
    """Return the right reading of the scene, ending in the choice of `chosen`. Raises NoOracleError."""
    if truth.task not in ORACLES:
        raise NoOracleError(f"nobody writes the reasoning of task {truth.task!r}; there is: {', '.join(ORACLES)}")
    module, _, name = ORACLES[truth.task].partition(":")
    write: Callable[[SceneTruth, SceneObject], str] = getattr(import_module(module), name)
    return write(truth, chosen)
