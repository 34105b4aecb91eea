# SPDX-License-Identifier: Apache-2.0
"""Choose the folder of a run so that no other run's results are overwritten."""

from __future__ import annotations

import json
from pathlib import Path

from chatvla_eval.results import RESULTS_NAME, RunInfo, results_dict

__all__ = ["another_run", "free_folder"]

_ASKED = (
    "task",
    "split",
    "policy",
    "seed",
    "transport",
    "swap",
    "forced_reasoning",
    "force_correct",
    "fonts",
    "delay_s",
    "replan_s",
    "timeout_s",
)
"""What tells one run from another in results.json."""


def free_folder(folder: Path, file: str) -> Path:
    """Return `folder`, or the first of FOLDER_2, FOLDER_3, ... that holds no `file` yet."""
    found, number = folder, 1
    while (found / file).exists():
        number += 1
        found = folder.with_name(f"{folder.name}_{number}")
    return found


def another_run(folder: Path, info: RunInfo) -> str:
    """Return in what the results in `folder` are of another run than `info`, "" where they are not or there are none.

    More trials than are asked for now are another run, too: the new ones would take their place.
    """
    try:
        found = json.loads((folder / RESULTS_NAME).read_text(encoding="utf-8"))
        there = len(found["trials"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    asked = results_dict(info, ())
    for name in _ASKED:
        # A file from before a setting was noted says nothing of it.
        if name in found and found[name] != asked.get(name):
            return f"{name} {found[name]!r}, not {asked.get(name)!r}"
    return f"{there} trials, not {info.trials}" if there > info.trials else ""
