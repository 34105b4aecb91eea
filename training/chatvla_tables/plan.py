# SPDX-License-Identifier: Apache-2.0
"""Turn tables into units of work: trainings and evaluations, each once, each after what it needs.

A unit is done when its own output says so, so a stopped run goes on where it was. What was evaluated needs its training
no more: evaluations kept in another folder (`evals`), under version control say, outlive the runs that they are of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chatvla_eval.results import RESULTS_NAME
from chatvla_tables.makers import check_maker, check_trials, makers
from chatvla_tables.rows import CELLS, ROUTER, ROWS, SIZES, TABLES, Cell, Row, Table
from chatvla_training.recipe import Recipe
from chatvla_training.recipes import find_recipe

__all__ = [
    "EXTRAS",
    "PlanSettings",
    "Unit",
    "cell_folder",
    "evals_folder",
    "plan",
    "policy_folder",
    "spared",
    "stage_recipes",
    "unit_name",
]

EXTRAS = {"questions": "questions.json", "understanding": "understanding.json", "latency": "latency.json"}
"""What is asked of a row beside success, and the file that says it."""
_PROOFS = EXTRAS | {"router": "router.json", "relabel": "language.jsonl"}
"""The file that a finished unit of each kind has written last."""
_PRODUCERS = ("train", "relabel", "questions")
"""Kinds whose output may be for other units alone."""
_STARTERS = ("stage1", "stage2", "dense_film1", "chatvla1_1", "vlm2vla")
"""Roles that begin at the common start when they come first."""


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What a run of the tables is asked for."""

    out: Path
    evals: Path | None = None
    """Where evaluations are kept; None for OUT/evals."""
    size: str = "tiny"
    task: str = "math_match"
    seeds: int = 1
    """Training seeds per row, 0, 1, ..."""
    steps: float = 1.0
    """Factor on every recipe's steps."""
    trials: float = 1.0
    """Factor on every cell's trials; at least one is run."""
    start: str = ""
    """Checkpoint that all trained rows start from; empty for the recipes' own."""
    data: str = ""
    """Robot data of all rows; empty for the recipes' own."""
    overrides: tuple[tuple[str, Any], ...] = ()
    """Further fields of every recipe, the same for all rows."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of work."""

    key: str
    kind: str
    """"train", "eval", "router", "relabel", "questions", "understanding" or "latency"."""
    folder: Path
    after: tuple[str, ...]
    """Keys of the units that must be done before."""
    amount: int
    """Optimiser steps, trials or inputs: what the time is proportional to."""
    rate_key: str
    """Units with the same rate key take the same time per amount."""
    spec: dict[str, Any]
    """The recipe, or the evaluation's arguments."""
    alone: bool = False
    """Whether nothing may run beside it: it measures time."""
    made_by: list[dict[str, Any]] | None = None
    """Recipes of the policy that it evaluates, in order; None where there are none."""

    @property
    def done(self) -> bool:
        """Whether its output is complete."""
        if self.kind == "train":
            return (self.folder / "policy" / "manifest.json").is_file()
        if self.kind in _PROOFS:
            return (self.folder / _PROOFS[self.kind]).is_file()
        try:
            return bool(json.loads((self.folder / RESULTS_NAME).read_text(encoding="utf-8"))["complete"])
        except (OSError, ValueError, KeyError):
            return False


def stage_recipes(row: Row, settings: PlanSettings, seed: int) -> list[Recipe]:
    """Return the recipes of one training of `row`, each starting from the one before. Raises RecipeError."""
    roles = SIZES[settings.size]
    found: list[Recipe] = []
    for role, changes in row.stages:
        if role not in roles:
            continue
        recipe = find_recipe(roles[role])
        steps = max(1, round(recipe.steps * settings.steps))
        fields: dict[str, Any] = {"seed": seed, "steps": steps, "warmup": min(recipe.warmup, steps // 4), **changes}
        if role == "vlm2vla":
            fields["data"] = str(_language_data(settings))
        elif settings.data and recipe.data:
            fields["data"] = settings.data
        if found:
            fields["init"] = str(_stage_folder(row, settings, seed, len(found) - 1) / "policy")
        elif role in _STARTERS:
            fields["init"] = settings.start or find_recipe(roles["stage1"]).init
        found.append(replace(recipe, **(fields | dict(settings.overrides))))
    return found


def policy_folder(row: Row, settings: PlanSettings, seed: int) -> Path:
    """Return where the trained policy of a row lies."""
    return _stage_folder(row, settings, seed, len(stage_recipes(row, settings, seed)) - 1) / "policy"


def cell_folder(row: Row, settings: PlanSettings, seed: int, cell: Cell) -> Path:
    """Return where the results of one cell lie."""
    return evals_folder(settings) / f"{row.name}_s{seed}" / cell.name


def evals_folder(settings: PlanSettings) -> Path:
    """Return the folder of all evaluations."""
    return settings.evals or settings.out / "evals"


def unit_name(unit: Unit, out: Path) -> str:
    """Return the unit's name: its folder's place in the folder of all runs, or in that of kept evaluations."""
    inside = unit.folder.is_relative_to(out)
    return "/".join(unit.folder.relative_to(out).parts if inside else ("evals", *unit.folder.parts[-2:]))


def cell_trials(cell: Cell, settings: PlanSettings) -> int:
    """Return the number of trials of a cell."""
    return max(1, round(cell.trials * settings.trials))


def plan(tables: Sequence[str], settings: PlanSettings) -> list[Unit]:
    """Return the units of `tables` in an order in which each comes after what it needs.

    Raises RecipeError; ValueError where a finished evaluation is of other recipes or of another number of trials.
    """
    units: dict[str, Unit] = {}
    for name in tables:
        if name == ROUTER:
            _add(units, _router_units(settings))
            continue
        table = TABLES[name]
        for row in (ROWS[row] for row in table.rows):
            if row.absent or row.policy == "chance":
                continue
            for seed in range(settings.seeds if row.stages else 1):
                _add(units, _trainings(row, settings, seed))
                _add(units, [_evaluation(row, settings, seed, CELLS[cell]) for cell in table.cells])
            if row.stages:
                _add(units, _extras(row, table, settings))
    for unit in units.values():
        if unit.made_by is not None and unit.done:
            check_maker(unit.folder, unit.made_by)
        if unit.kind == "eval" and unit.done:
            check_trials(unit.folder / RESULTS_NAME, unit.amount)
    return list(units.values())


def spared(units: Sequence[Unit]) -> set[str]:
    """Return the keys of trainings and other preparations that are only for units which are done."""
    serves = {key for unit in units for key in unit.after}
    needed: set[str] = set()
    for unit in reversed(units):
        goal = unit.kind not in _PRODUCERS or unit.key not in serves
        if not unit.done and (goal or unit.key in needed):
            needed |= {unit.key, *unit.after}
    return {unit.key for unit in units if unit.key in serves and not unit.done and unit.key not in needed}


def _add(units: dict[str, Unit], more: Iterable[Unit]) -> None:
    for unit in more:
        units.setdefault(unit.key, unit)


def _stage_folder(row: Row, settings: PlanSettings, seed: int, index: int) -> Path:
    """Return the run folder of one stage; rows that train the same first stages share them."""
    stages = row.stages[: index + 1]
    same = next(other for other in ROWS.values() if other.stages[: index + 1] == stages)
    return settings.out / "runs" / f"{same.name}_s{seed}" / f"{index}_{stages[index][0]}"


def _trainings(row: Row, settings: PlanSettings, seed: int) -> list[Unit]:
    units: list[Unit] = []
    for index, recipe in enumerate(stage_recipes(row, settings, seed)):
        folder = _stage_folder(row, settings, seed, index)
        if recipe.system == "vlm2vla":
            units.append(_unit("relabel", _language_data(settings), (), 1, {"arguments": [_robot_data(settings)]}))
        units.append(
            Unit(
                key=str(folder),
                kind="train",
                folder=folder,
                after=(units[-1].key,) if units else (),
                amount=recipe.steps,
                rate_key=f"{recipe.name} {recipe.moe} {recipe.experts}/{recipe.top_k} batch {recipe.batch}",
                spec=recipe.to_dict(),
            )
        )
    return units


def _robot_data(settings: PlanSettings) -> str:
    return settings.data or find_recipe(SIZES[settings.size]["stage1"]).data


def _language_data(settings: PlanSettings) -> Path:
    """Return where the robot data lies as language."""
    return settings.out / "data" / f"{Path(_robot_data(settings)).name}_language"


def _evaluation(row: Row, settings: PlanSettings, seed: int, cell: Cell) -> Unit:
    folder = cell_folder(row, settings, seed, cell)
    policy = row.policy or str(policy_folder(row, settings, seed))
    trials = cell_trials(cell, settings)
    words = [settings.task, "--policy", policy, "--split", cell.split, "--trials", str(trials), "--seed", "0"]
    words += ["--out", str(folder), "--jobs", "1", "--no-film", "--quiet", *(["--swap"] if cell.swap else [])]
    return Unit(
        key=str(folder),
        kind="eval",
        folder=folder,
        after=(str(Path(policy).parent),) if row.stages else (),
        amount=trials,
        rate_key=f"trial {row.name}",
        spec={"arguments": words},
        made_by=makers(stage_recipes(row, settings, seed), settings.out) if row.stages else None,
    )


def _extras(row: Row, table: Table, settings: PlanSettings) -> list[Unit]:
    """Return the units of questions and of the time of a decision, on the first training seed."""
    policy, words = policy_folder(row, settings, 0), evals_folder(settings) / "questions"
    made_by = makers(stage_recipes(row, settings, 0), settings.out)
    start, needed = stage_recipes(row, settings, 0)[0].init, str(policy.parent)
    units: list[Unit] = []
    if table.questions and row.language:
        count = max(1, round(table.questions * settings.trials))
        units.append(_unit("questions", words, (), count, {"count": count}))
        folder = evals_folder(settings) / f"{row.name}_s0" / "understanding"
        data = ["--data", str(words / EXTRAS["questions"]), "--policy", str(policy), "--base", start, "--quiet"]
        units.append(
            _unit(
                "understanding", folder, (needed, str(words)), 2 * count, {"arguments": [*data, "--out", str(folder)]}
            )
        )
    if table.decisions:
        folder = evals_folder(settings) / f"{row.name}_s0" / "latency"
        spec = {"policy": str(policy), "task": settings.task, "scenes": table.decisions}
        units.append(replace(_unit("latency", folder, (needed,), table.decisions, spec), alone=True))
    return [unit if unit.kind == "questions" else replace(unit, made_by=made_by) for unit in units]


def _unit(kind: str, folder: Path, after: tuple[str, ...], amount: int, spec: dict[str, Any]) -> Unit:
    return Unit(key=str(folder), kind=kind, folder=folder, after=after, amount=amount, rate_key=kind, spec=spec)


def _router_units(settings: PlanSettings) -> list[Unit]:
    row = ROWS["full"]
    units = _trainings(row, settings, 0)
    folder = evals_folder(settings) / "router"
    inputs = max(2, round(52 * settings.trials))
    before = stage_recipes(row, settings, 0)[0].init
    words = ["--policy", str(policy_folder(row, settings, 0)), "--trials", str(inputs), "--task", settings.task]
    words += ["--before", before, "--out", str(folder)]
    return [
        *units,
        Unit(
            key=str(folder),
            kind="router",
            folder=folder,
            after=(units[-1].key,),
            amount=2 * inputs,
            rate_key="router input",
            spec={"arguments": words},
            made_by=makers(stage_recipes(row, settings, 0), settings.out),
        ),
    ]
