# SPDX-License-Identifier: Apache-2.0
"""Put a table together from its cells' results: rates over seeds, intervals, paired tests, the paper's numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from chatvla_eval.paired import compared
from chatvla_eval.results import RESULTS_NAME, source_commit
from chatvla_eval.statistics import mean_interval, proportion
from chatvla_eval.tasks import task_by_name
from chatvla_tables.paper import PAPER
from chatvla_tables.plan import EXTRAS, PlanSettings, cell_folder, cell_trials, evals_folder, stage_recipes
from chatvla_tables.rows import CELLS, ROWS, TABLES, Row, Table

__all__ = ["table_results"]

_DIGITS = 6
Trials = list[dict[str, Any]]


def table_results(name: str, settings: PlanSettings, *, hours: float, failed: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of docs/results/NAME_SIZE.json; `hours` is the machine time of the whole run."""
    table = TABLES[name]
    trials = {row: _row_trials(ROWS[row], table, settings) for row in table.rows}
    rows = [_row(ROWS[row], table, settings, trials, failed) for row in table.rows]
    last = table.cells[-1]
    return {
        "name": name,
        "title": table.title,
        "task": settings.task,
        "size": settings.size,
        "simulation": True,
        "seeds": settings.seeds,
        "steps_factor": settings.steps,
        "trials": {cell: cell_trials(CELLS[cell], settings) for cell in table.cells},
        "hours": round(hours, 2),
        "commit": source_commit(),
        "paper": "real robot; open-world 52 and in-domain 13 trials, one training seed",
        "rows": rows,
        "claims": [_claim(table, row, trials, last) for row in table.claims],
    }


def _row_trials(row: Row, table: Table, settings: PlanSettings) -> dict[str, list[Trials]]:
    """Return the trials of each cell, a list for each seed whose evaluation is complete."""
    found: dict[str, list[Trials]] = {}
    for cell in table.cells:
        source = ROWS["expert"] if row.policy == "chance" else row
        for seed in range(settings.seeds if source.stages else 1):
            path = cell_folder(source, settings, seed, CELLS[cell]) / RESULTS_NAME
            try:
                results = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if results["complete"]:
                found.setdefault(cell, []).append(results["trials"])
    return found


def _row(
    row: Row,
    table: Table,
    settings: PlanSettings,
    trials: Mapping[str, Mapping[str, list[Trials]]],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    own = trials[row.name]
    found: dict[str, Any] = {"name": row.name, "label": row.label, "privileged": row.policy == "expert"}
    if row.absent:
        found["absent"] = row.absent
    recipes = stage_recipes(row, settings, 0)
    found["recipes"] = [
        {"recipe": recipe.name, "steps": recipe.steps, "changes": _changes(row, k)} for k, recipe in enumerate(recipes)
    ]
    errors = sorted({why for key, why in failed.items() if f"/{row.name}_s" in key})
    if errors:
        found["failed"] = errors
    found |= _extras(row, table, settings)
    found["cells"] = {}
    for cell in table.cells:
        entry: dict[str, Any] = {"paper": _paper(table.name, row.name, cell)}
        if own.get(cell):
            entry |= _chance(own[cell][0]) if row.policy == "chance" else _rates(own[cell], row, settings.task)
            reference = trials[table.reference].get(cell)
            if row.name != table.reference and row.policy != "chance" and reference:
                entry["against_reference"] = _paired(reference, own[cell])
        found["cells"][cell] = entry
    return found


def _extras(row: Row, table: Table, settings: PlanSettings) -> dict[str, Any]:
    """Return answers to questions, against the start's, and the time of a decision, where the table asks for them."""
    found: dict[str, Any] = {}
    folder = evals_folder(settings) / f"{row.name}_s0"
    for kind, wanted in (("understanding", table.questions), ("latency", table.decisions)):
        path = folder / kind / EXTRAS[kind]
        if not wanted or not row.stages or not path.is_file():
            continue
        said = json.loads(path.read_text(encoding="utf-8"))
        if kind == "understanding":
            said = {key: said["sets"][0][key] for key in ("n", "policy", "base", "difference", "retention")}
        found[kind] = said
    return found


def _changes(row: Row, index: int) -> dict[str, Any]:
    return dict(row.stages[index][1]) if index < len(row.stages) else {}


def _rates(seeds: Sequence[Trials], row: Row, task: str) -> dict[str, Any]:
    """Return the rates over all seeds and for each; OCR and math only where the system writes text."""
    pooled = [trial for trials in seeds for trial in trials]
    found: dict[str, Any] = {
        "success": _share(pooled),
        "per_seed": [_share(trials)["k"] for trials in seeds],
        "seeds": len(seeds),
    }
    for measure, most in task_by_name(task).measures.items() if row.language else ():
        interval = asdict(mean_interval([trial[measure] for trial in pooled]))
        found[measure] = {key: round(value, _DIGITS) for key, value in interval.items()} | {"of": most}
    links: dict[str, int] = {}
    for trial in pooled:
        if trial.get("link"):
            links[trial["link"]] = links.get(trial["link"], 0) + 1
    return found | {"links": links}


def _chance(trials: Trials) -> dict[str, Any]:
    """Return the expected successes of one who takes any card at random and never drops it: nothing is run."""
    expected = sum(1 / len(trial["cards"]) for trial in trials)
    return {"expected": {"successes": round(expected, 2), "n": len(trials)}}


def _share(trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    rate = proportion(sum(trial["success"] for trial in trials), len(trials))
    return {key: round(value, _DIGITS) for key, value in asdict(rate).items()}


def _paired(reference: Sequence[Trials], own: Sequence[Trials]) -> dict[str, Any]:
    """Return McNemar's test over the same trials of the same training seeds; one seed may stand against several."""
    pairs = list(zip(reference, own, strict=False)) if len(own) > 1 else [(trials, own[0]) for trials in reference]
    first = [trial | {"seed": (k, trial["seed"])} for k, (trials, _) in enumerate(pairs) for trial in trials]
    second = [trial | {"seed": (k, trial["seed"])} for k, (_, trials) in enumerate(pairs) for trial in trials]
    return compared(first, second)


def _paper(table: str, row: str, cell: str) -> dict[str, Any] | None:
    found = PAPER.get((table, row, cell))
    if found is None:
        return None
    success = None if found.success is None else {"k": found.success[0], "n": found.success[1]}
    return {"success": success, "ocr": found.ocr, "math": found.math, "where": "real robot"}


def _claim(table: Table, row: str, trials: Mapping[str, Mapping[str, list[Trials]]], cell: str) -> dict[str, Any]:
    """Return whether the paper's finding, the reference above this row, shows here."""
    reference, own = trials[table.reference].get(cell), trials[row].get(cell)
    found: dict[str, Any] = {"row": row, "cell": cell, "paper": f"{table.reference} succeeds more often than {row}"}
    if not reference or not own:
        return found | {"verdict": "not run"}
    test = _paired(reference, own)["success"]
    ahead = test["only_first"] - test["only_second"]
    shows = "shows" if ahead > 0 else "is reversed"
    return found | {"verdict": shows if test["p"] < 0.05 and ahead else "does not show", "p": round(test["p"], _DIGITS)}
