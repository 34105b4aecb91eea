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

from chatvla_eval.counterfactual.doses import DOSES
from chatvla_eval.results import RESULTS_NAME
from chatvla_tables.makers import check_asked, check_maker, check_relabelled, check_training, makers
from chatvla_tables.rows import CELLS, EVAL_SEED, ROWS, Cell, Row
from chatvla_tables.settings import (
    PlanSettings,
    cell_folder,
    cell_trials,
    evals_folder,
    language_data,
    policy_folder,
    robot_data_name,
    scaled,
    seeds_of,
    stage_folder,
    stage_recipes,
    start_name,
)
from chatvla_tables.sizes import QUESTIONS, RELABEL
from chatvla_tables.tables import ROUTER, TABLES, Table
from chatvla_training.system_runs import SYSTEM_RUNS

__all__ = ["EXTRAS", "Unit", "plan", "spared", "unit_name", "units_of"]

EXTRAS = {
    "questions": "questions.json",
    "understanding": "understanding.json",
    "latency": "latency.json",
    "counterfactual": "counterfactual.json",
}
"""What is asked of a row beside success, and the file that says it."""
_PROOFS = EXTRAS | {
    "train": "policy/manifest.json",
    "step0": "manifest.json",
    "router": "router.json",
    "relabel": "language.jsonl",
}
"""The file that a finished unit of each kind has written last."""
_COUNTED = EXTRAS | {"eval": RESULTS_NAME, "router": "router.json"}
"""Kinds whose amount is one of inputs, and the file that says how many and of which seed."""
_PRODUCERS = ("train", "step0", "relabel", "questions")
"""Kinds whose output may be for other units alone."""
_ROUTER_INPUTS = 52
_ROUTER_OWN = "math_match"
"""The task that the evaluation of the router has questions of its own about."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of work."""

    key: str
    kind: str
    """"eval", or a key of _PROOFS."""
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
    trained_in: tuple[Path, ...] = ()
    """Run folders of those recipes."""

    @property
    def sort(self) -> str:
        """Units of one sort take about the same time per work: trainings by stage or by a system's own way."""
        system = self.spec.get("system")
        return f"train {system if system in SYSTEM_RUNS else self.spec['stage']}" if self.kind == "train" else self.kind

    @property
    def work(self) -> int:
        """What the time of units of one sort is about proportional to: samples where it trains, else the amount."""
        return self.amount * self.spec["batch"] if self.kind == "train" else self.amount

    @property
    def done(self) -> bool:
        """Whether its output is complete."""
        if self.kind in _PROOFS:
            return (self.folder / _PROOFS[self.kind]).is_file()
        try:
            return bool(json.loads((self.folder / RESULTS_NAME).read_text(encoding="utf-8"))["complete"])
        except (OSError, ValueError, KeyError):
            return False


def plan(tables: Sequence[str], settings: PlanSettings) -> list[Unit]:
    """Return the units of `tables` in an order in which each comes after what it needs.

    Raises RecipeError; ValueError where what is done is of other recipes, another start, task or other trials.
    """
    units = units_of(tables, settings)
    for unit in (unit for unit in units if unit.done):
        if unit.made_by is not None:
            check_maker(unit.folder, unit.made_by)
        if unit.kind in ("train", "step0"):
            check_training(unit.folder / "policy" if unit.kind == "train" else unit.folder, unit.spec, settings.out)
        if unit.kind in _COUNTED:
            check_asked(unit.folder / _COUNTED[unit.kind], EVAL_SEED, unit.amount, settings.task)
        if unit.kind == "relabel":
            check_relabelled(unit.folder, unit.spec["arguments"][0])
    return units


def units_of(tables: Sequence[str], settings: PlanSettings) -> list[Unit]:
    """Return the units of `tables` in order, whatever is done already. Raises RecipeError."""
    units: dict[str, Unit] = {}
    for name in tables:
        if name == ROUTER:
            _add(units, _router_units(settings))
            continue
        table = TABLES[name]
        for row in (ROWS[row] for row in table.rows_at(settings.size)):
            if row.policy == "chance":
                continue
            for seed in seeds_of(row, settings):
                _add(units, _trainings(row, settings, seed))
                _add(units, [_evaluation(row, settings, seed, CELLS[cell]) for cell in table.cells])
            if row.stages:
                _add(units, _extras(row, table, settings))
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


def unit_name(unit: Unit, out: Path) -> str:
    """Return the unit's name: its folder's place in the folder of all runs, or in that of kept evaluations."""
    inside = unit.folder.is_relative_to(out)
    return "/".join(unit.folder.relative_to(out).parts if inside else ("evals", *unit.folder.parts[-2:]))


def _add(units: dict[str, Unit], more: Iterable[Unit]) -> None:
    for unit in more:
        units.setdefault(unit.key, unit)


def _trainings(row: Row, settings: PlanSettings, seed: int) -> list[Unit]:
    units: list[Unit] = []
    for index, recipe in enumerate(stage_recipes(row, settings, seed)):
        folder = stage_folder(row, settings, seed, index)
        if recipe.system == "vlm2vla" and not units:
            asked = [robot_data_name(settings), *RELABEL.get(settings.size, ())]
            units.append(_unit("relabel", language_data(settings), (), 1, {"arguments": asked}))
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


def _evaluation(row: Row, settings: PlanSettings, seed: int, cell: Cell) -> Unit:
    folder = cell_folder(row, settings, seed, cell)
    policy = row.policy or str(policy_folder(row, settings, seed))
    trials = cell_trials(cell, settings)
    words = [
        settings.task,
        "--policy",
        policy,
        "--split",
        cell.split,
        "--trials",
        str(trials),
        "--seed",
        str(EVAL_SEED),
    ]
    words += ["--out", str(folder), "--jobs", "1", "--no-film", "--quiet", *(["--swap"] if cell.swap else [])]
    unit = _unit("eval", folder, (str(Path(policy).parent),) if row.stages else (), trials, {"arguments": words})
    return _of_policy(replace(unit, rate_key=f"trial {row.name}"), row, settings, seed)


def _of_policy(unit: Unit, row: Row, settings: PlanSettings, seed: int) -> Unit:
    """Return `unit` with what made the policy that it is about."""
    if not row.stages:
        return unit
    recipes = stage_recipes(row, settings, seed)
    folders = tuple(stage_folder(row, settings, seed, index) for index in range(len(recipes)))
    return replace(unit, made_by=makers(recipes, settings.out), trained_in=folders)


def _extras(row: Row, table: Table, settings: PlanSettings) -> list[Unit]:
    """Return the units of questions, time of a decision and counterfactual replay, on the first training seed."""
    policy, folder = policy_folder(row, settings, 0), evals_folder(settings) / f"{row.name}_s0"
    needed = str(policy.parent)
    units: list[Unit] = []
    if table.questions and row.language:
        count = scaled(table.questions, settings)
        questions = _questions(settings, "questions", count)
        asked = ["--data", str(questions.folder / EXTRAS["questions"]), "--policy", str(policy)]
        asked += ["--base", start_name(settings), "--quiet", "--out", str(folder / "understanding")]
        after = (needed, questions.key)
        units += [
            questions,
            _unit("understanding", folder / "understanding", after, 2 * count, {"arguments": asked}),
        ]
    if table.decisions:
        spec = {"policy": str(policy), "task": settings.task, "scenes": table.decisions}
        units.append(replace(_unit("latency", folder / "latency", (needed,), table.decisions, spec), alone=True))
    if table.frames and row.language and settings.task in DOSES:
        frames = scaled(table.frames, settings)
        asked = ["--policy", str(policy), "--task", settings.task, "--frames", str(frames), "--seed", str(EVAL_SEED)]
        asked += ["--jobs", "1", "--quiet", "--out", str(folder / "counterfactual")]
        units.append(_unit("counterfactual", folder / "counterfactual", (needed,), frames, {"arguments": asked}))
    return [unit if unit.kind == "questions" else _of_policy(unit, row, settings, 0) for unit in units]


def _questions(settings: PlanSettings, name: str, count: int) -> Unit:
    """Return the unit that draws `count` short questions about the size's task into the folder `name`."""
    spec = {"count": count, "source": QUESTIONS[settings.task]}
    # Pictures, drawn again where they are missing: not for the folder that is kept.
    return _unit("questions", settings.out / "data" / name, (), count, spec)


def _unit(kind: str, folder: Path, after: tuple[str, ...], amount: int, spec: dict[str, Any]) -> Unit:
    return Unit(key=str(folder), kind=kind, folder=folder, after=after, amount=amount, rate_key=kind, spec=spec)


def _router_units(settings: PlanSettings) -> list[Unit]:
    """Return the full method's trainings, its model at step 0, which has the router untrained, and the comparison."""
    row = ROWS["full"]
    units = _trainings(row, settings, 0)
    before = stage_folder(row, settings, 0, 0).parent / "step0"
    units.append(_unit("step0", before, (), 1, stage_recipes(row, settings, 0)[0].to_dict()))
    inputs = scaled(_ROUTER_INPUTS, settings, least=2)
    folder = evals_folder(settings) / "router"
    words = ["--policy", str(policy_folder(row, settings, 0)), "--before", str(before), "--task", settings.task]
    words += ["--trials", str(inputs), "--seed", str(EVAL_SEED), "--out", str(folder)]
    after = (units[-2].key, str(before))
    if settings.task != _ROUTER_OWN:
        questions = _questions(settings, "router_questions", inputs)
        units.append(questions)
        words += ["--data", str(questions.folder / EXTRAS["questions"])]
        after += (questions.key,)
    unit = _unit("router", folder, after, 2 * inputs, {"arguments": words})
    return [*units, _of_policy(unit, row, settings, 0)]
