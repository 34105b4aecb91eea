# SPDX-License-Identifier: Apache-2.0
"""List the tasks that can be scored. One file per task; adding one is a file here and a line in TASKS."""

from __future__ import annotations

from collections.abc import Mapping

from chatvla_eval.tasks.base import ScoredReasoning, Task, UnknownTaskError
from chatvla_eval.tasks.math_match import MathMatch
from chatvla_eval.tasks.toy_placement import ToyPlacement
from chatvla_eval.tasks.toy_sorting import ToySorting

__all__ = ["TASKS", "ScoredReasoning", "Task", "UnknownTaskError", "task_by_name"]

TASKS: Mapping[str, Task] = {task.name: task for task in (MathMatch(), ToyPlacement(), ToySorting())}


def task_by_name(name: str) -> Task:
    """Return the task called `name`. Raises UnknownTaskError, listing those that exist."""
    if name not in TASKS:
        raise UnknownTaskError(f"no task {name!r}; there are: {', '.join(sorted(TASKS))}")
    return TASKS[name]
