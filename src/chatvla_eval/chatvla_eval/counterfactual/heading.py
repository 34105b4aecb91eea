# SPDX-License-Identifier: Apache-2.0
"""Tell which object a chunk heads for: whose expert motion its own tool path, by forward kinematics, is nearest to.

The scripted expert plans from the same frame to every object; staying where the arm is counts as one more motion, so
that a chunk that goes nowhere is not given to the nearest object. A motion may begin up to half the chunk later (late
is not elsewhere), and with any arm that can take the object. Distance of two paths: mean over time of the tools'
distances [m], added up over the arms. T chunk steps, D joints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk, ActionMode, Observation
from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_control.scene import SceneTruth
from chatvla_eval.oracle import reasoning_for
from chatvla_eval.tools import tool_points
from chatvla_sim.expert import make_expert

__all__ = ["STAYS", "heading", "path_distance_m", "reference_paths", "tool_path"]

STAYS = "stays"
"""Heading of a chunk that is nearer to no motion than to any object's."""
STEP_S = 0.1


@runtime_checkable
class _KnowsWays(Protocol):
    """An expert of a robot with several arms."""

    def ways(self, observation: Observation, reasoning: str) -> list[ActionChunk]:
        """Return the next second of every way to take what `reasoning` chooses: one for each arm that can."""
        ...


Path = NDArray[np.float64]
"""Tool points over time, shape (T, arms, 3), one every STEP_S from the start of the chunk."""


def tool_path(chunk: ActionChunk, task: str) -> Path:
    """Return the tool points of `chunk` every STEP_S. Raises ValueError for poses, or a task without kinematics."""
    tools = tool_points(task)
    if tools is None:
        raise ValueError(f"no kinematics for task {task!r}: a chunk's heading cannot be told")
    if chunk.mode is not ActionMode.JOINT_POSITION:
        raise ValueError(f"chunk of {chunk.policy} holds poses; counterfactual replay reads joint positions")
    order = [chunk.joint_names.index(name) for name in robot_spec(chunk.robot).joint_names]
    every = max(1, round(STEP_S / chunk.step_period_s))
    return np.stack([tools(row[order]) for row in chunk.actions[::every]])


def path_distance_m(first: Path, second: Path) -> float:
    """Return the mean distance of two paths over the time that both cover [m]."""
    steps = min(len(first), len(second))
    return float(np.linalg.norm(first[:steps] - second[:steps], axis=2).sum(axis=1).mean())


def reference_paths(
    spec: RobotSpec, truth: SceneTruth, observation: Observation, names: Mapping[str, str]
) -> dict[str, tuple[Path, ...]]:
    """Return the expert's paths to each object, its own first, and the path that stays.

    `names` are the objects' by text place. Several paths lead to an object that several arms can take.
    """
    paths: dict[str, tuple[Path, ...]] = {}
    for item in truth.objects:
        if item.name in names:
            expert = make_expert(truth.task, spec, lambda: truth)
            expert.reset(0)
            text = reasoning_for(truth, item)
            own = expert.infer(observation, text).chunk
            ways = expert.ways(observation, text) if isinstance(expert, _KnowsWays) else []
            paths[item.name] = tuple(tool_path(chunk, truth.task) for chunk in (own, *ways))
    still = tool_points(truth.task)
    assert still is not None
    steps = max(len(path) for of_object in paths.values() for path in of_object)
    paths[STAYS] = (np.repeat(still(observation.joint_positions)[None], steps, axis=0),)
    return paths


def heading(path: Path, references: Mapping[str, Sequence[Path]]) -> str:
    """Return the name of the reference that `path` is nearest to, by any of its ways, begun at once or later."""
    return min(references, key=lambda name: min(_distance_m(path, way) for way in references[name]))


def _distance_m(path: Path, reference: Path) -> float:
    """Return the distance of `path` from `reference` at the delay, of at most half the path, at which it is least."""
    steps = min(len(path), len(reference))
    delayed = (np.concatenate([np.repeat(reference[:1], late, axis=0), reference]) for late in range(steps // 2 + 1))
    return min(path_distance_m(path[:steps], late) for late in delayed)
