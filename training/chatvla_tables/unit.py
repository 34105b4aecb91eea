# SPDX-License-Identifier: Apache-2.0
"""Do one unit of work in a process of its own: `python -m chatvla_tables.unit KIND FOLDER SPEC.json`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Train or evaluate as the spec says; return the exit code."""
    kind, folder, spec_path = arguments
    spec = json.loads(Path(spec_path).read_text(encoding="utf-8"))
    if kind in ("train", "step0"):
        return _train(kind, Path(folder), spec)
    if kind == "router":
        from chatvla_eval.router.command import main as router

        return router(spec["arguments"])
    if kind == "relabel":
        from chatvla_training.vlm2vla.relabel import main as relabel

        return relabel([*spec["arguments"], "--out", folder])
    if kind == "questions":
        from chatvla_tables.extras import write_questions

        write_questions(Path(folder), **spec)
        return 0
    if kind == "latency":
        from chatvla_tables.extras import measure_latency

        measure_latency(spec.pop("policy"), Path(folder), **spec)
        return 0
    if kind == "understanding":
        from chatvla_eval.understanding.command import main as understanding

        return understanding(spec["arguments"])
    if kind == "counterfactual":
        from chatvla_eval.counterfactual.command import main as counterfactual

        return counterfactual(spec["arguments"])
    from chatvla_eval.cli import main as evaluate

    return evaluate(spec["arguments"])


def _train(kind: str, folder: Path, spec: dict[str, Any]) -> int:
    """Train the recipe `spec`, or write what it starts from; return the exit code."""
    from chatvla_tables.step0 import save_step0
    from chatvla_training.recipe import Recipe
    from chatvla_training.training_run import RUN_ERRORS, train_recipe

    spec["ratio"] = tuple(spec["ratio"])
    recipe = Recipe(**spec)
    try:
        if kind == "step0":
            save_step0(recipe, folder)
        else:
            train_recipe(recipe, folder)
            # Gigabytes that nothing reads again.
            shutil.rmtree(folder / "features", ignore_errors=True)
    except RUN_ERRORS as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
