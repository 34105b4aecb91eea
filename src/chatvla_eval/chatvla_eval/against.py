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


def read_before(folder: Path, *, task: str, split: str) -> dict[str, Any]:
    """Return the earlier run's results.json, of the same task and split. Raises AgainstError."""
    path = folder / RESULTS_NAME
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AgainstError(f"--against: {path} cannot be read: {error}") from error
    _check_scenes(before, str(path), task=task, split=split)
    seeds = [trial["seed"] for trial in before["trials"]]
    if len(set(seeds)) < len(seeds):
        raise AgainstError(f"--against: {path} holds several trials of one seed; give a run that has each once")
    if not before.get("simulation", True):
        raise AgainstError(f"--against: {path} is of a real robot, whose scenes no seed draws; compare bags (--bag)")
    return before


def against(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the paired comparison of two results, trials matched by their seeds: before is first, after second.

    Raises AgainstError when they are of different scenes or share no trial.
    """
    _check_scenes(before, name, task=after["task"], split=after["split"])
    found = compared(before["trials"], after["trials"], list(task_by_name(after["task"]).measures))
    if not found["n"]:
        raise AgainstError(f"--against: {name} shares no trial with this run: give the same --seed")
    head = {"policy": before["policy"], "privileged": bool(before.get("privileged")), "swap": before["swap"]}
    return {"run": name, **head, **found}


def _check_scenes(before: Mapping[str, Any], name: str, *, task: str, split: str) -> None:
    """Raise AgainstError unless the same seeds draw the same scenes: those of one task and one split."""
    if before.get("task") != task:
        raise AgainstError(f"--against: {name} is of task {before.get('task')!r}, this run of {task!r}")
    if before.get("split") != split:
        raise AgainstError(
            f"--against: {name} is of split {before.get('split')!r}, this run of {split!r}, and the same seeds draw "
            f"other scenes there; run one of them again with the other's --split"
        )
