# SPDX-License-Identifier: Apache-2.0
"""Set a run against an earlier one on the same trials: before and after a swap, a forced text, another policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatvla_eval.paired import compared
from chatvla_eval.results import RESULTS_NAME
from chatvla_eval.tasks import task_by_name

__all__ = ["AgainstError", "against", "read_before"]


class AgainstError(ValueError):
    """The two runs cannot be compared; the message says why."""


def read_before(folder: Path, task: str) -> dict[str, Any]:
    """Return the earlier run's results.json. Raises AgainstError."""
    path = folder / RESULTS_NAME
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AgainstError(f"--against: {path} cannot be read: {error}") from error
    if before.get("task") != task:
        raise AgainstError(f"--against: {path} is of task {before.get('task')!r}, this run of {task!r}")
    return before


def against(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the paired comparison of two results, trials matched by their seeds: before is first, after second.

    Raises AgainstError when they share no trial.
    """
    found = compared(before["trials"], after["trials"], list(task_by_name(after["task"]).measures))
    if not found["n"]:
        raise AgainstError(f"--against: {name} shares no trial with this run: give the same --seed")
    head = {"policy": before["policy"], "privileged": bool(before.get("privileged")), "swap": before["swap"]}
    return {"run": name, **head, **found}
