# SPDX-License-Identifier: Apache-2.0
"""Say beside each evaluation which recipes made its policy: figures outlive the trainings and are never mixed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chatvla_policy.checkpoint import CheckpointError
from chatvla_policy.checkpoint.files import read_manifest
from chatvla_policy.systems import checkpoint_folder
from chatvla_training.recipe import Recipe

__all__ = ["MADE_BY", "check_maker", "check_trials", "makers", "write_maker"]

MADE_BY = "made_by.json"


def makers(recipes: Sequence[Recipe], out: Path) -> list[dict[str, Any]]:
    """Return the recipes of a policy as its figures are known by.

    Folders are said from `out` on, and the start by its content, too.
    """
    found: list[dict[str, Any]] = []
    for recipe in recipes:
        fields = {
            key: value.replace(f"{out}/", "") if isinstance(value, str) else value
            for key, value in recipe.to_dict().items()
        }
        found.append(json.loads(json.dumps(fields)))
    if found and found[0]["init"]:
        found[0]["init_sha256"] = _content(recipes[0].init)
    return found


def _content(start: str) -> str:
    """Return the fingerprint of the checkpoint `start`; empty where it is not there yet."""
    try:
        return read_manifest(checkpoint_folder(start))[1]
    except (CheckpointError, OSError):
        return ""


def write_maker(folder: Path, made_by: Sequence[dict[str, Any]]) -> None:
    """Write MADE_BY into `folder`, which is made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{MADE_BY}"
    aside.write_text(json.dumps(list(made_by), indent=1) + "\n", encoding="utf-8")
    aside.replace(folder / MADE_BY)


def check_maker(folder: Path, made_by: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError when the figures in `folder` are said to be of other recipes than `made_by`."""
    path = folder / MADE_BY
    if not path.is_file():
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if before == list(made_by):
        return
    differs = {
        f"{new['name']}.{key}"
        for old, new in zip(before, made_by, strict=False)
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key)
    }
    raise ValueError(
        f"{folder} holds figures of other recipes ({', '.join(sorted(differs)) or 'other stages'} differ); "
        "delete that folder to run it again, or give another --out or --evals"
    )


def check_trials(results: Path, wanted: int) -> None:
    """Raise ValueError when the finished evaluation `results` is of another number of trials."""
    found = len(json.loads(results.read_text(encoding="utf-8"))["trials"])
    if found != wanted:
        raise ValueError(
            f"{results.parent} holds {found} trials, {wanted} are asked for; give the --trials that it was made with, "
            "delete that folder to run it again, or give another --out or --evals"
        )
