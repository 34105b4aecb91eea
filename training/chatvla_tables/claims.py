# SPDX-License-Identifier: Apache-2.0
"""Judge the paper's findings on our trials: each by its own measure, paired on the same scenes and training seeds.

Success: McNemar's exact test. OCR, math and drops: bootstrap 95% interval of the paired difference, fixed seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from chatvla_eval.paired import compared, paired_difference
from chatvla_tables.tables import Claim, Table

__all__ = ["UNTRAINED", "BySeed", "Trials", "judged", "paired"]

_DIGITS = 6
_LEVEL = 0.05
UNTRAINED = -1
"""Stands for the training seed of a row that trains nothing."""
Trials = Sequence[Mapping[str, Any]]
BySeed = Mapping[int, Trials]
Cells = Mapping[str, BySeed]


def paired(first: BySeed, second: BySeed) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the trials of training seeds that both have, their `seed` being training seed and scene.

    A row that trains nothing stands against every seed of the other.
    """
    seeds = (first.keys() | second.keys()) - {UNTRAINED}
    both = [seed for seed in sorted(seeds) or [UNTRAINED] if _of(first, seed) and _of(second, seed)]
    one, two = (
        [{**trial, "seed": (seed, trial["seed"])} for seed in both for trial in _of(side, seed)]
        for side in (first, second)
    )
    return one, two


def _of(side: BySeed, seed: int) -> Trials:
    return side.get(seed) or side.get(UNTRAINED) or ()


def judged(claim: Claim, table: Table, trials: Mapping[str, Cells]) -> dict[str, Any]:
    """Return whether the paper's finding shows here, with what it rests on."""
    found: dict[str, Any] = {"row": claim.row, "measure": claim.measure, "kind": claim.kind, "paper": claim.text}
    reference, own = trials[table.reference], trials[claim.row]
    if claim.kind == "drop":
        return found | _drop(reference, own, table)
    return found | {"cell": table.cells[-1]} | _above(claim, reference, own, table.cells[-1])


def _above(claim: Claim, reference: Cells, own: Cells, cell: str) -> dict[str, Any]:
    first, second = paired(reference.get(cell, {}), own.get(cell, {}))
    if not first:
        return {"verdict": "not run"}
    if claim.measure == "success":
        test = compared(first, second)["success"]
        ahead = test["only_first"] - test["only_second"]
        side = 0 if test["p"] >= _LEVEL else ahead
        return {"verdict": _verdict(side), "p": round(test["p"], _DIGITS)}
    difference = compared(first, second, (claim.measure,))[claim.measure]
    return {"verdict": _verdict(-_side(difference)), "difference": difference}


def _drop(reference: Cells, own: Cells, table: Table) -> dict[str, Any]:
    """Return each row's fall from the first to the last cell, and whether the row falls deeper than the reference."""
    first, last = table.cells[0], table.cells[-1]
    falls: list[dict[Any, int]] = []
    rows: list[dict[str, Any]] = []
    for cells in (reference, own):
        before, after = paired(cells.get(first, {}), cells.get(last, {}))
        later = {trial["seed"]: trial["success"] for trial in after}
        pairs = {t["seed"]: (t["success"], later[t["seed"]]) for t in before if t["seed"] in later}
        falls.append({seed: int(a) - int(b) for seed, (a, b) in pairs.items()})
        rows.append(
            {
                "before": sum(a for a, _ in pairs.values()),
                "after": sum(b for _, b in pairs.values()),
                "n": len(pairs),
                "p": round(compared(before, after)["success"]["p"], _DIGITS) if pairs else None,
            }
        )
    seeds = sorted(falls[0].keys() & falls[1].keys())
    found = {"cells": [first, last], "reference": rows[0], "own": rows[1]}
    if not seeds:
        return found | {"verdict": "not run"}
    interval = asdict(paired_difference(*([fall[seed] for seed in seeds] for fall in falls)))
    difference = {name: round(interval[key], _DIGITS) for name, key in _NAMES.items()}
    return found | {"verdict": _verdict(_side(difference)), "difference": difference}


_NAMES = {"difference": "mean", "low": "low", "high": "high"}


def _side(difference: Mapping[str, Any]) -> int:
    """Return 1 where the whole interval lies above zero, -1 where it lies below, else 0."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return 0
    return (low > 0) - (high < 0)


def _verdict(side: int) -> str:
    """Return the verdict for a positive, a negative or no difference in the paper's direction."""
    return "shows" if side > 0 else "is reversed" if side < 0 else "does not show"
