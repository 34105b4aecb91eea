# SPDX-License-Identifier: Apache-2.0
"""Train a recipe: `./chatvla train RECIPE [--key value]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from chatvla_training.recipe import Recipe, RecipeError, changed
from chatvla_training.recipes import PLAN_DEMOS, PLANS, RECIPES, find_recipe

__all__ = ["main", "parse"]


def main(arguments: Sequence[str]) -> int:
    """Train; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    try:
        recipes, out, devices = parse(arguments)
    except RecipeError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    from chatvla_policy.runtime.host_memory import keep_freed_memory
    from chatvla_training.devices import start_on_devices, started_by_launcher, visible_devices
    from chatvla_training.training_run import RUN_ERRORS, train_recipe

    devices = devices or visible_devices()
    if devices > 1 and not started_by_launcher():
        return start_on_devices(arguments, devices)
    keep_freed_memory()
    try:
        record_missing(arguments[0], recipes)
        for recipe, folder in planned(recipes, out):
            train_recipe(recipe, folder)
    except RUN_ERRORS as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train: stopped; the same command goes on from the last state", file=sys.stderr)
        return 130
    return 0


def record_missing(plan: str, recipes: Sequence[Recipe]) -> None:
    """Record the demonstrations that a plan names, where its data set is not there yet. Raises RecipeError."""
    if plan not in PLAN_DEMOS:
        return
    task, episodes = PLAN_DEMOS[plan]
    folder = Path(next(recipe.data for recipe in recipes if recipe.data))
    if folder.exists():
        return
    from chatvla_training.demos.cli import main as record

    print(f"train: {folder} is not there; recording {episodes} demonstrations of {task}", file=sys.stderr)
    code = record([task, "--episodes", str(episodes), "--out", str(folder)])
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise RecipeError(f"the demonstrations for {plan} could not be recorded; see above")


def parse(arguments: Sequence[str]) -> tuple[list[Recipe], Path, int]:
    """Return the recipes to run one after the other, the run folder and the number of devices (0: all).

    Raises RecipeError for an unknown recipe, key or value.
    """
    name, *rest = arguments
    names = PLANS.get(name, (name,))
    recipes = [find_recipe(part) for part in names]
    values: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        if not word.startswith("--"):
            raise RecipeError(f"{word!r} is no --key; write --key value")
        key, found, text = word[2:].partition("=")
        value = text if found else next(words, None)
        if value is None:
            raise RecipeError(f"--{key} needs a value")
        values[key] = value
    out = Path(values.pop("out", f"runs/{name}"))
    try:
        devices = int(values.pop("devices", "0"))
    except ValueError as error:
        raise RecipeError("--devices takes a whole number") from error
    # A plan's runs start from each other; what they share is given once.
    return [changed(recipe, values) for recipe in recipes], out, devices


def planned(recipes: Sequence[Recipe], out: Path) -> list[tuple[Recipe, Path]]:
    """Return each recipe with its run folder; in a plan, each starts from the checkpoint of the one before."""
    if len(recipes) == 1:
        return [(recipes[0], out)]
    runs: list[tuple[Recipe, Path]] = []
    for recipe in recipes:
        init = str(runs[-1][1] / "policy") if runs else recipe.init
        runs.append((replace(recipe, init=init), out / recipe.name))
    return runs


def usage() -> str:
    """Return the help text."""
    width = max(len(name) for name in [*RECIPES, *PLANS])
    lines = ["Usage: ./chatvla train RECIPE [--key value ...] [--out DIR] [--devices N]", "", "Recipes:"]
    lines += [f"  {recipe.name:<{width}}  {recipe.summary}" for recipe in RECIPES.values()]
    lines += [f"  {name:<{width}}  {', then '.join(parts)}" for name, parts in PLANS.items()]
    keys = [item for item in Recipe.__dataclass_fields__ if item not in ("name", "summary")]
    lines += ["", "Keys: " + ", ".join(keys), "", "The same command goes on where a stopped run was."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
