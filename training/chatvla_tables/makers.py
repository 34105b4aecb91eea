# SPDX-License-Identifier: Apache-2.0
"""Say beside each evaluation what made its policy, and refuse what is of other recipes: figures are never mixed.

made_by.json      the recipes, compared before figures are used again
trained_in.json   commits and data of the trainings, for the record: figures outlive the run folders
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chatvla_policy.checkpoint import CheckpointError
from chatvla_policy.checkpoint.files import read_manifest
from chatvla_policy.systems import checkpoint_folder
from chatvla_training.data.episodes import DatasetError, data_set_sha256
from chatvla_training.recipe import Recipe

__all__ = [
    "MADE_BY",
    "TRAINED_IN",
    "check_asked",
    "check_maker",
    "check_relabelled",
    "check_training",
    "content",
    "makers",
    "read_maker",
    "write_maker",
]

MADE_BY = "made_by.json"
TRAINED_IN = "trained_in.json"
_WORDS_ALONE = ("summary",)
"""Fields of a recipe that say something of it and change nothing."""
_PLACES = ("init", "init_vision", "data")


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
        found[0]["init_sha256"] = content(recipes[0].init)
    return found


def content(start: str) -> str:
    """Return the fingerprint of the checkpoint `start`; empty where it is not there yet."""
    try:
        return read_manifest(checkpoint_folder(start))[1]
    except (CheckpointError, OSError):
        return ""


def write_maker(folder: Path, made_by: Sequence[Mapping[str, Any]], trained_in: Sequence[Path] = ()) -> None:
    """Write MADE_BY, and TRAINED_IN from the run folders `trained_in`, into `folder`, which is made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / MADE_BY, list(made_by))
    _write(folder / TRAINED_IN, [_record(run) for run in trained_in])


def read_maker(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what MADE_BY and TRAINED_IN in `folder` say; empty lists where they are missing."""
    made_by, trained_in = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        for path in (folder / MADE_BY, folder / TRAINED_IN)
    )
    return made_by, trained_in


def _record(run: Path) -> dict[str, Any]:
    """Return commits and data of the training in `run`; empty where it says nothing."""
    path = run / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    commits = [commit for commit in config.get("commits", [config.get("commit")]) if commit]
    return {"commits": sorted(set(commits)), "data": config.get("data", {})}


def check_maker(folder: Path, made_by: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError when the figures in `folder` are said to be of other recipes than `made_by`.

    A start that is not there is taken to be the same.
    """
    if not (folder / MADE_BY).is_file():
        return
    before = read_maker(folder)[0]
    differs = {f"{new['name']}.{key}" for old, new in zip(before, made_by, strict=False) for key in _differ(old, new)}
    if differs or len(before) != len(made_by):
        raise ValueError(
            f"{folder} holds figures of other recipes ({', '.join(sorted(differs)) or 'other stages'} differ); "
            "delete that folder to run it again, or give another --out or --evals"
        )


def check_training(policy: Path, spec: Mapping[str, Any], out: Path) -> None:
    """Raise ValueError when the checkpoint `policy` was trained by another recipe than `spec`, or from another start.

    A start in `out` is known by its content alone; one that is not there is taken to be the same.
    """
    path = policy / "provenance.json"
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "recipe" not in said:
        return
    old = said["recipe"] | {"init_sha256": said.get("init_sha256", "")}
    new = json.loads(json.dumps(spec)) | {"init_sha256": content(spec["init"]) if spec["init"] else ""}
    differs = [key for key in _differ(old, new) if not (key in _PLACES and _same_place(old.get(key), new[key], out))]
    if differs:
        names = ", ".join(f"{spec['name']}.{key}" for key in differs)
        raise ValueError(
            f"{policy.parent} holds a training of another recipe ({names} differ); "
            "delete that folder to train it again, or give another --out"
        )


def _differ(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the fields in which two recipes differ, the old one as it would be said now."""
    old = Recipe.said_now(old)
    keys = (old.keys() | new.keys()) - set(_WORDS_ALONE)
    if not (old.get("init_sha256") and new.get("init_sha256")):
        keys -= {"init_sha256"}
    return sorted(key for key in keys if old.get(key) != new.get(key))


def _same_place(old: Any, new: str, out: Path) -> bool:
    """Return whether two names mean one folder; what lies in `out` may have moved with it."""
    if new.startswith(f"{out}/"):
        return True
    try:
        return checkpoint_folder(str(old)).resolve() == checkpoint_folder(new).resolve()
    except CheckpointError:
        return False


def check_relabelled(folder: Path, data: str) -> None:
    """Raise ValueError when the language data in `folder` was written of another data set than `data` now is.

    One that is not there is taken to be the same.
    """
    said = json.loads((folder / "info.json").read_text(encoding="utf-8")).get("source", {}).get("sha256")
    try:
        now = data_set_sha256(Path(data))
    except DatasetError:
        return
    if said and said != now:
        raise ValueError(
            f"{folder} was written of other robot data than {data} now is; delete that folder, and what was trained "
            "and evaluated of it (rows vlm2vla), or give another --out"
        )


def check_asked(path: Path, seed: int, wanted: int, task: str) -> None:
    """Raise ValueError when the finished evaluation `path` is of another task, other scenes or another number.

    `path` is what a unit of any kind but training writes; `wanted` is the unit's amount.
    """
    read = json.loads(path.read_text(encoding="utf-8"))
    said = read if isinstance(read, dict) else {}
    found = _asked(read, wanted)
    remedy = "delete that folder to run it again, or give another --out or --evals"
    if said.get("task", task) != task:
        raise ValueError(f"{path.parent} holds trials of {said['task']}, the size asked for has {task}; {remedy}")
    if found != wanted:
        raise ValueError(
            f"{path.parent} holds {found} trials or questions, {wanted} are asked for; give the --trials that it was "
            f"made with, {remedy}"
        )
    if said.get("seed", seed) != seed:
        raise ValueError(
            f"{path.parent} holds scenes of seed {said['seed']}, the tables evaluate seed {seed}; {remedy}"
        )


def _asked(read: Any, wanted: int) -> int:
    """Return the amount that the file of a finished unit tells of; `wanted` where it tells of none."""
    if isinstance(read, list):
        return len(read)
    if "models" in read:
        return sum(kind["inputs"] for kind in read["models"][-1]["kinds"].values())
    if "sets" in read:
        # Each is asked of the policy and of its base.
        return 2 * sum(entry["n"] for entry in read["sets"])
    return len(read["trials"]) if "trials" in read else read.get("frames_asked", read.get("scenes", wanted))


def _write(path: Path, value: Any) -> None:
    aside = path.with_name(f".{path.name}")
    aside.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)
