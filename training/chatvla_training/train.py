# SPDX-License-Identifier: Apache-2.0
"""Train a recipe: `./chatvla train RECIPE [--key value]`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from chatvla_training.recipe import Recipe, RecipeError, changed
from chatvla_training.recipes import PLAN_DEMOS, PLANS, RECIPES, find_recipe

__all__ = ["main", "parse"]


def main(arguments: Sequence[str]) -> int:
    """Train; return the exit code."""
    if not arguments or arguments[0] == "help" or {"-h", "--help"} & set(arguments):
        print(usage())
        return 0 if arguments else 2
    try:
        recipes, out, devices = parse(arguments)
    except RecipeError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    from chatvla_policy.runtime.host_memory import keep_freed_memory
    from chatvla_training.devices import start_on_devices, started_by_launcher, visible_devices
    from chatvla_training.trainer.stopping import Stopped
    from chatvla_training.training_run import RUN_ERRORS, train_recipe

    try:
        devices = devices or visible_devices()
        alone = devices == 1 or started_by_launcher()
        if not alone and len(recipes) == 1:
            return start_on_devices(arguments, devices)
        keep_freed_memory()
        runs = planned(recipes, out)
        for recipe, folder in runs:
            if len(runs) > 1:
                record_missing(recipe, {part.name: where for part, where in runs})
            # What a frozen model says is kept by one process, which is fastest with all of a CPU's threads.
            kept = not alone and recipe.cache_features and visible_devices() == 1
            shared = recipe if kept else for_devices(recipe, devices)
            if alone or kept:
                train_recipe(shared, folder)
                continue
            code = start_on_devices([*words_of(shared), "--out", str(folder), "--devices", str(devices)], devices)
            if code:
                return code
    except RUN_ERRORS as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(f"train: {stopped}, its state is kept; the same command goes on from there", file=sys.stderr)
        return 128 + (stopped.number or signal.SIGTERM)
    except KeyboardInterrupt:
        print("train: stopped; the same command goes on from the last state", file=sys.stderr)
        return 130
    return 0


def for_devices(recipe: Recipe, devices: int) -> Recipe:
    """Return `recipe` with micro-batches that `devices` can share one step's batch in, where the batch allows it."""
    most = recipe.batch // devices
    return replace(recipe, micro_batch=most) if 0 < most < recipe.micro_batch else recipe


def words_of(recipe: Recipe) -> list[str]:
    """Return the command's words that make `recipe` from the one of its name."""
    plain, words = find_recipe(recipe.name), [recipe.name]
    for item in fields(Recipe):
        value = getattr(recipe, item.name)
        if value != getattr(plain, item.name):
            text = ":".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{item.name}", text]
    return words


def record_missing(recipe: Recipe, runs: Mapping[str, Path]) -> None:
    """Record the demonstrations that a recipe of a plan needs, where its data sets are not there yet.

    `runs` are the plan's run folders by recipe. Raises RecipeError.
    """
    from chatvla_training.demos.cli import main as record

    for folder in (part.strip() for part in recipe.data.split(",")):
        if folder not in PLAN_DEMOS or Path(folder).exists():
            continue
        words = [checkpoint_there(word, runs) for word in PLAN_DEMOS[folder]]
        print(f"train: {folder} is not there; recording it: demos {' '.join(words)}", file=sys.stderr)
        code = record([*words, "--out", folder])
        if code == 130:
            raise KeyboardInterrupt
        if code:
            raise RecipeError(f"the demonstrations for {recipe.name} could not be recorded; see above")


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
    if devices < 0:
        raise RecipeError(f"--devices is {devices}; give the number of processes, or 0 for one per GPU")
    # A plan's runs start from each other, so its first alone takes an init; what they share is given once.
    shared = {key: text for key, text in values.items() if key != "init"}
    return [changed(recipe, shared if number else values) for number, recipe in enumerate(recipes)], out, devices


def planned(recipes: Sequence[Recipe], out: Path) -> list[tuple[Recipe, Path]]:
    """Return each recipe with its run folder; one that starts from another of the plan finds its checkpoint there."""
    if len(recipes) == 1:
        return [(recipes[0], out)]
    runs = {recipe.name: out / recipe.name for recipe in recipes}
    return [
        (
            replace(
                recipe,
                init=checkpoint_there(recipe.init, runs),
                init_vision=checkpoint_there(recipe.init_vision, runs),
            ),
            runs[recipe.name],
        )
        for recipe in recipes
    ]


def checkpoint_there(init: str, runs: Mapping[str, Path]) -> str:
    """Return where the checkpoint `init` of a recipe, such as runs/PLAN/NAME/policy, lies in the run folders `runs`."""
    name = Path(init).parent.name
    return str(runs[name] / "policy") if name in runs else init


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
