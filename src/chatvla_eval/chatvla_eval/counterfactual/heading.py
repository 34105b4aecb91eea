# SPDX-License-Identifier: Apache-2.0
"""Tell which object a chunk heads for: whose expert motion its own tool path, by forward kinematics, is nearest to.

The scripted expert plans from the same frame to every object; staying where the arm is counts as one more motion, so
that a chunk that goes nowhere is not given to the nearest object. Distance of two paths: mean over time of the tools'
distances [m], added up over the arms. T chunk steps, D joints.
"""

from __future__ import annotations

from collections.abc import Mapping

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
) -> dict[str, Path]:
    """Return the expert's path to each object, and the path that stays; `names` are the objects' by text place."""
    paths: dict[str, Path] = {}
    for item in truth.objects:
        if item.name in names:
            expert = make_expert(truth.task, spec, lambda: truth)
            expert.reset(0)
            paths[item.name] = tool_path(expert.infer(observation, reasoning_for(truth, item)).chunk, truth.task)
    still = tool_points(truth.task)
    assert still is not None
    steps = max(len(path) for path in paths.values())
    paths[STAYS] = np.repeat(still(observation.joint_positions)[None], steps, axis=0)
    return paths


def heading(path: Path, references: Mapping[str, Path]) -> str:
    """Return the name of the reference that `path` is nearest to."""
    return min(references, key=lambda name: path_distance_m(path, references[name]))
