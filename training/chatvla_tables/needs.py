# SPDX-License-Identifier: Apache-2.0
"""Say what units need that no unit makes and that is not there, before any of them runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from chatvla_eval.trial import trial_seed
from chatvla_policy.checkpoint import CheckpointError
from chatvla_policy.systems import checkpoint_folder, shipped_names
from chatvla_tables.plan import Unit, spared
from chatvla_tables.rows import EVAL_SEED
from chatvla_tables.settings import PlanSettings, start_name
from chatvla_training.data import layout
from chatvla_training.demos.collect import SEED_STRIDE
from chatvla_training.recipes import PLAN_DEMOS, PLANS

__all__ = ["missing"]

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def missing(units: Sequence[Unit], settings: PlanSettings) -> list[str]:
    """Return a sentence for each start and data set that is missing, with the command that makes it."""
    unneeded = spared(units)
    left = [unit for unit in units if not unit.done and unit.key not in unneeded]
    trainings = [unit for unit in left if unit.kind in ("train", "step0")]
    starts = {unit.spec["init"] for unit in trainings} | {
        start_name(settings) for unit in left if unit.kind == "understanding"
    }
    data = {unit.spec["data"] for unit in trainings if unit.spec["stage"] != "language" or unit.spec["data"]}
    data |= {unit.spec["arguments"][0] for unit in left if unit.kind == "relabel"}
    several = [unit for unit in left if unit.kind == "relabel" and "," in unit.spec["arguments"][0]]
    own = f"{settings.out}/"
    base = f"{settings.size}_base"
    shipped = f", or give --start {base}, which ships with the package" if base in shipped_names() else ""
    found = [f"{said}{shipped}" for start in sorted(starts) if not start.startswith(own) and (said := _start(start))]
    found += [_data(name) for name in sorted(data) if not name.startswith(own)]
    found += ["VLM2VLA's language is written of one data set: give --data one folder, or leave its tables out"] * bool(
        several
    )
    return [sentence for sentence in found if sentence]


def _start(name: str) -> str:
    """Return what is wrong with the start `name`; empty where it is there, a name of the hub, or none is asked for."""
    try:
        if not name or _HUB_NAME.fullmatch(name) or checkpoint_folder(name):
            return ""
    except CheckpointError as error:
        plans = [plan for plan, recipes in PLANS.items() if Path(name).parent.name in recipes]
        return f"the start is missing: {error}" + (f"; `./chatvla train {plans[0]}` makes it" if plans else "")
    return ""


def _data(names: str) -> str:
    """Return what is wrong with the data sets `names`, with commas; empty where they are there and can be used."""
    if not names:
        return "no demonstrations are named: give --data FOLDER, made by `./chatvla demos`"
    for name in (part.strip() for part in names.split(",")):
        if not (Path(name) / layout.INFO_PATH).is_file():
            words = " ".join([*PLAN_DEMOS.get(name, ("TASK",)), "--out", name])
            return f"the demonstrations {name} are missing: `./chatvla demos {words}` records them"
        path = Path(name) / layout.PROVENANCE_PATH
        seed = json.loads(path.read_text(encoding="utf-8")).get("seed") if path.is_file() else None
        if seed == trial_seed(EVAL_SEED, 0) // SEED_STRIDE:
            return f"{name} was recorded with --seed {seed}, which shows the scenes of the evaluations: record another"
    return ""
