# SPDX-License-Identifier: Apache-2.0
"""Say what a run of the tables is asked for, which recipes follow from it, and where everything lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chatvla_tables.paper import PAPER_TASKS
from chatvla_tables.rows import ROWS, Cell, Row
from chatvla_tables.sizes import DEFAULT_SIZE, SIZES, TASKS
from chatvla_training.recipe import Recipe
from chatvla_training.recipes import find_recipe

__all__ = [
    "PlanSettings",
    "cell_folder",
    "cell_trials",
    "evals_folder",
    "language_data",
    "policy_folder",
    "robot_data_name",
    "scaled",
    "seeds_of",
    "shown_place",
    "stage_folder",
    "stage_recipes",
    "start_name",
]

_STARTERS = ("stage1", "stage2", "dense_film1", "chatvla1_1", "vlm2vla")
"""Roles that begin at the common start when they come first."""
_PAPERS_EXPERT = "H"
"""Action expert of recipes of real size, which leave it to the size's name."""


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What a run of the tables is asked for."""

    out: Path
    evals: Path | None = None
    """Where evaluations are kept; None for OUT/evals."""
    size: str = DEFAULT_SIZE
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

    @property
    def task(self) -> str:
        """The task of the size's data and trials."""
        return TASKS[self.size]


def stage_recipes(row: Row, settings: PlanSettings, seed: int) -> list[Recipe]:
    """Return the recipes of one training of `row`, each starting from the one before. Raises RecipeError."""
    roles = SIZES[settings.size]
    found: list[Recipe] = []
    for role, changes in row.stages:
        if role not in roles:
            continue
        plain = find_recipe(roles[role])
        fields: dict[str, Any] = {"seed": seed, "steps": max(1, round(plain.steps * settings.steps))}
        if plain.system == "vlm2vla":
            fields["data"] = str(language_data(settings))
        elif settings.data and plain.stage != "language":
            fields["data"] = settings.data
        if found:
            fields["init"] = str(stage_folder(row, settings, seed, len(found) - 1) / "policy")
        elif role in _STARTERS:
            fields["init"] = start_name(settings)
        taken = {} if found else _taken(row, settings)
        recipe = replace(plain, **(fields | taken | dict(changes) | dict(settings.overrides)))
        recipe = replace(recipe, steps=_steps(row, recipe, settings))
        if "warmup" not in dict(settings.overrides):
            recipe = replace(recipe, warmup=min(plain.warmup, recipe.steps // 4))
        found.append(recipe)
    return found


def _taken(row: Row, settings: PlanSettings) -> dict[str, Any]:
    """Return what a row that does not run stage 1 takes from it."""
    first = find_recipe(SIZES[settings.size]["stage1"])
    taken = {name: getattr(first, name) for name in row.takes}
    # Without a name a stage 2 would keep the start's expert, and a start of language alone has none that was trained.
    return taken | ({"action_size": first.action_size or _PAPERS_EXPERT} if "action_size" in taken else {})


def _steps(row: Row, recipe: Recipe, settings: PlanSettings) -> int:
    """Return the optimiser steps of `recipe` in `row`, by the row's budget."""
    if row.budget == "recipes":
        return recipe.steps
    full = stage_recipes(ROWS["full"], settings, recipe.seed)
    if row.budget == "steps":
        return sum(stage.steps for stage in full)
    return max(1, round(sum(stage.steps * stage.batch for stage in full) / recipe.batch))


def start_name(settings: PlanSettings) -> str:
    """Return the checkpoint that all trained rows start from, as it was given."""
    return settings.start or find_recipe(SIZES[settings.size]["stage1"]).init


def robot_data_name(settings: PlanSettings) -> str:
    """Return the robot data of all rows as it was given; empty where none is."""
    return settings.data or find_recipe(SIZES[settings.size]["stage1"]).data


def language_data(settings: PlanSettings) -> Path:
    """Return where the robot data lies as language."""
    return settings.out / "data" / f"{Path(robot_data_name(settings)).name}_language"


def stage_folder(row: Row, settings: PlanSettings, seed: int, index: int) -> Path:
    """Return the run folder of one stage; rows that train the same first stages share them."""
    stages = row.stages[: index + 1]
    others = [row] if row.alone else [other for other in ROWS.values() if not other.alone]
    same = next(other for other in others if other.stages[: index + 1] == stages)
    return settings.out / "runs" / f"{same.name}_s{seed}" / f"{index}_{stages[index][0]}"


def policy_folder(row: Row, settings: PlanSettings, seed: int) -> Path:
    """Return where the trained policy of a row lies."""
    return stage_folder(row, settings, seed, len(stage_recipes(row, settings, seed)) - 1) / "policy"


def evals_folder(settings: PlanSettings) -> Path:
    """Return the folder of all evaluations."""
    return settings.evals or settings.out / "evals"


def cell_folder(row: Row, settings: PlanSettings, seed: int, cell: Cell) -> Path:
    """Return where the results of one cell lie."""
    return evals_folder(settings) / f"{row.name}_s{seed}" / cell.name


def seeds_of(row: Row, settings: PlanSettings) -> range:
    """Return the training seeds of a row; one, 0, where nothing is trained."""
    return range(settings.seeds if row.stages else 1)


def scaled(count: int, settings: PlanSettings, *, least: int = 1) -> int:
    """Return a number of trials, questions or frames by the run's factor."""
    return max(least, round(count * settings.trials))


def cell_trials(cell: Cell, settings: PlanSettings) -> int:
    """Return the number of trials of a cell: the paper's for the task, by the run's factor."""
    return scaled(PAPER_TASKS[settings.task].trials[cell.split], settings)


def shown_place(place: str) -> str:
    """Return a folder or name as a page may say it: from the working folder on, else its last three parts."""
    path = Path(place)
    if not path.is_absolute():
        return place
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return "…/" + "/".join(path.parts[-3:])
