# SPDX-License-Identifier: Apache-2.0
"""Put a table together from its cells' results: rates over seeds, intervals, paired tests, the paper's numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chatvla_eval.counterfactual.summary import comparison
from chatvla_eval.paired import compared
from chatvla_eval.results import RESULTS_NAME, source_commit
from chatvla_eval.statistics import mean_interval, proportion
from chatvla_eval.tasks import task_by_name
from chatvla_tables.claims import UNTRAINED, BySeed, Trials, judged, paired
from chatvla_tables.execute import HOURS
from chatvla_tables.makers import content, read_maker
from chatvla_tables.paper import PAPER, PAPER_TASKS, points_of
from chatvla_tables.plan import EXTRAS, unit_name, units_of
from chatvla_tables.rates import Hours
from chatvla_tables.rows import CELLS, EVAL_SEED, ROWS, Row
from chatvla_tables.settings import (
    PlanSettings,
    cell_folder,
    cell_trials,
    evals_folder,
    robot_data_name,
    seeds_of,
    shown_place,
    stage_recipes,
    start_name,
)
from chatvla_tables.tables import TABLES, Table
from chatvla_training.recipes import find_recipe

__all__ = ["run_facts", "table_results"]

_DIGITS = 6
_ANSWERS = ("n", "policy", "base", "difference", "retention", "retention_interval")
_NO_CHANGES = ("seed", "steps", "warmup", "init", "data")
"""Fields in which a row's recipes differ from the named ones for other reasons than the row's own."""


def table_results(name: str, settings: PlanSettings, *, failed: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of docs/results/NAME_SIZE.json; `failed` are units by key with why."""
    table = TABLES[name]
    results = {row: _row_results(ROWS[row], table, settings) for row in table.rows_at(settings.size)}
    trials = {row: {cell: _trials(of_cell) for cell, of_cell in cells.items()} for row, cells in results.items()}
    rows = [_row(ROWS[row], table, settings, trials, failed) for row in table.rows_at(settings.size)]
    evaluated = [found for cells in results.values() for of_cell in cells.values() for found in of_cell.values()]
    folders = [
        cell_folder(ROWS[row], settings, seed, CELLS[cell])
        for row, cells in results.items()
        for cell, of_cell in cells.items()
        for seed in of_cell
        if seed != UNTRAINED
    ]
    flips = _flips(rows, table.reference)
    commits = [part["commit"] for part in [*evaluated, *_asked(rows)] if part.get("commit")]
    found = {
        "name": name,
        "title": table.title_on(settings.task),
        "simulation": True,
        "measures": points_of(settings.task),
        "trials": {cell: cell_trials(CELLS[cell], settings) for cell in table.cells},
        **run_facts([name], settings, folders, commits),
        "paper": _paper_trials(table, settings.task),
        "notes": table.notes_at(settings.size),
        "rows": rows,
        "claims": [judged(claim, table, trials) for claim in table.claims.get(settings.task, ())],
    }
    return found | ({"counterfactual": flips} if flips else {})


def _asked(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what rows were asked beside trials."""
    return [row[kind] for row in rows for kind in ("latency", "counterfactual", "understanding") if kind in row]


def run_facts(
    names: Sequence[str], settings: PlanSettings, folders: Sequence[Path], commits: Iterable[str]
) -> dict[str, Any]:
    """Return what figures in `folders` rest on: settings, start, commits of code, machine time of tables `names`."""
    made, trained = zip(*map(read_maker, folders), strict=True) if folders else ((), ())
    start = start_name(settings)
    kept = next((recipes[0]["init_sha256"] for recipes in made if recipes and recipes[0].get("init_sha256")), "")
    units = {unit_name(unit, settings.out) for unit in units_of(names, settings)}
    return {
        "task": settings.task,
        "size": settings.size,
        "settings": {
            "start": shown_place(start),
            "start_sha256": content(start) or kept,
            "data": shown_place(robot_data_name(settings)),
            "data_sha256": _recordings(folders, trained),
            "eval_seed": EVAL_SEED,
            "seeds": settings.seeds,
            "steps_factor": settings.steps,
            "trials_factor": settings.trials,
            "overrides": dict(settings.overrides),
        },
        "hours": round(Hours(evals_folder(settings) / HOURS).of(units), 2),
        "commit": source_commit(),
        "commits": {
            "trainings": sorted({commit for stages in trained for stage in stages for commit in stage["commits"]}),
            "evaluations": sorted(set(commits)),
        },
    }


def _recordings(
    folders: Sequence[Path], trained: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, dict[str, list[str]]]:
    """Return, for each data set that trainings name, its SHA-256 with the runs trained on it.

    There is more than one where a data set was recorded again and its files came out different.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for folder, stages in zip(folders, trained, strict=True):
        for name, sha256 in sorted({item for stage in stages for item in stage.get("data", {}).items()}):
            runs = found.setdefault(name, {}).setdefault(sha256, [])
            if folder.parent.name not in runs:
                runs.append(folder.parent.name)
    return dict(sorted(found.items()))


def _row_results(row: Row, table: Table, settings: PlanSettings) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the results of each cell by training seed, where the evaluation is complete."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    source = ROWS["expert"] if row.policy == "chance" else row
    for cell in table.cells:
        for seed in seeds_of(source, settings):
            path = cell_folder(source, settings, seed, CELLS[cell]) / RESULTS_NAME
            try:
                results = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if results["complete"]:
                found.setdefault(cell, {})[seed if source.stages else UNTRAINED] = results
    return found


def _trials(results: Mapping[int, Mapping[str, Any]]) -> BySeed:
    return {seed: found["trials"] for seed, found in results.items()}


def _row(
    row: Row,
    table: Table,
    settings: PlanSettings,
    trials: Mapping[str, Mapping[str, BySeed]],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    own = trials[row.name]
    found: dict[str, Any] = {"name": row.name, "label": row.label, "privileged": row.policy == "expert"}
    found["recipes"] = _recipes(row, settings)
    found["samples"] = sum(stage["steps"] * stage["batch"] for stage in found["recipes"])
    errors = sorted({why for key, why in failed.items() if f"/{row.name}_s" in key})
    if errors:
        found["failed"] = errors
    found |= _extras(row, table, settings)
    found["cells"] = {}
    for cell in table.cells:
        entry: dict[str, Any] = {"paper": _paper(table, settings.task, row.name, cell)}
        if own.get(cell):
            entry |= _chance(own[cell][UNTRAINED]) if row.policy == "chance" else _rates(own[cell], row, settings.task)
            first, second = paired(trials[table.reference].get(cell, {}), own[cell])
            if row.name != table.reference and row.policy != "chance" and first:
                entry["against_reference"] = compared(first, second)
        found["cells"][cell] = entry
    return found


def _recipes(row: Row, settings: PlanSettings) -> list[dict[str, Any]]:
    """Return steps, batch and the row's own changes of each of its stages."""
    found: list[dict[str, Any]] = []
    for recipe in stage_recipes(row, settings, 0):
        plain, overrides = find_recipe(recipe.name).to_dict(), dict(settings.overrides)
        changes = {
            key: value
            for key, value in recipe.to_dict().items()
            if value != plain[key] and key not in _NO_CHANGES and key not in overrides
        }
        found.append({"recipe": recipe.name, "steps": recipe.steps, "batch": recipe.batch, "changes": changes})
    return found


def _extras(row: Row, table: Table, settings: PlanSettings) -> dict[str, Any]:
    """Return answers to questions, time of a decision and counterfactual replay, where the table asks for them."""
    found: dict[str, Any] = {}
    folder = evals_folder(settings) / f"{row.name}_s0"
    wanted = {"understanding": table.questions, "latency": table.decisions, "counterfactual": table.frames}
    for kind in (kind for kind, count in wanted.items() if count and row.stages):
        path = folder / kind / EXTRAS[kind]
        if not path.is_file():
            continue
        said = json.loads(path.read_text(encoding="utf-8"))
        if kind == "understanding":
            said = {"commit": said.get("commit", "")} | {key: said["sets"][0][key] for key in _ANSWERS}
        elif kind == "counterfactual":
            said = {"split": said["split"], "commit": said["commit"]} | {
                key: said["policies"][0][key] for key in ("summary", "frames")
            }
        found[kind] = said
    return found


def _flips(rows: Sequence[Mapping[str, Any]], reference: str) -> list[dict[str, Any]]:
    """Return McNemar's test of the flips of each replayed row against the reference, on the frames that both have.

    Takes the frames out of the rows.
    """
    replays = {row["name"]: row["counterfactual"].pop("frames") for row in rows if "counterfactual" in row}
    first = replays.pop(reference, [])
    found = []
    for name, second in replays.items() if first else ():
        later = {frame["seed"]: frame for frame in second}
        both = [frame for frame in first if frame["seed"] in later]
        found.append({"rows": [reference, name], **comparison(both, [later[frame["seed"]] for frame in both])})
    return found


def _rates(by_seed: BySeed, row: Row, task: str) -> dict[str, Any]:
    """Return the rates over all seeds and for each; measures of the text only where the system writes one."""
    pooled = [trial for trials in by_seed.values() for trial in trials]
    found: dict[str, Any] = {"success": _share(pooled), "seeds": [seed for seed in by_seed if seed != UNTRAINED]}
    found["per_seed"] = [_share(trials)["k"] for trials in by_seed.values()]
    measures = task_by_name(task).measures if row.language else {}
    for measure, most in measures.items():
        found[measure] = _mean([trial[measure] for trial in pooled], most)
    if measures and (total := PAPER_TASKS[task].total):
        sums = [sum(trial[measure] for measure in measures) for trial in pooled]
        found[total] = _mean(sums, sum(measures.values()))
    links: dict[str, int] = {}
    for trial in pooled:
        if trial.get("link"):
            links[trial["link"]] = links.get(trial["link"], 0) + 1
    return found | {"links": links}


def _mean(values: Sequence[float], most: int) -> dict[str, Any]:
    return {key: round(value, _DIGITS) for key, value in asdict(mean_interval(values)).items()} | {"of": most}


def _chance(trials: Trials) -> dict[str, Any]:
    """Return the expected successes of one who takes any card at random and never drops it: nothing is run."""
    expected = sum(1 / len(trial["cards"]) for trial in trials)
    return {"expected": {"successes": round(expected, 2), "n": len(trials)}}


def _share(trials: Trials) -> dict[str, float]:
    rate = proportion(sum(trial["success"] for trial in trials), len(trials))
    return {key: round(value, _DIGITS) for key, value in asdict(rate).items()}


def _paper(table: Table, task: str, row: str, cell: str) -> dict[str, Any] | None:
    """Return the paper's numbers of one cell, and how a page says them; None where it gives none."""
    found = PAPER[task].get((table.paper or table.name, row, cell))
    if found is None:
        return None
    measures = points_of(task)
    success = None if found.success is None else {"k": found.success[0], "n": found.success[1]}
    points = {measure: getattr(found, measure) for measure in measures}
    return {"success": success, **points, "said": found.line(measures), "where": "real robot"}


def _paper_trials(table: Table, task: str) -> str:
    """Return what the paper's numbers beside ours rest on, as a page says it."""
    if not any(name == (table.paper or table.name) for name, _, _ in PAPER[task]):
        return "no numbers of these rows on this task"
    said = PAPER_TASKS[task]
    inside, outside = said.trials["in_domain"], said.trials["open_world"]
    trials = f"real robot; open-world {outside} and in-domain {inside} trials, one training seed"
    return f"{trials}; {said.note}" if said.note else trials
