# SPDX-License-Identifier: Apache-2.0
"""`chatvla tables TABLE ... --size tiny --out DIR`, or `all`: train, evaluate, write the tables."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from chatvla_control.argument_types import count, filled_path, positive
from chatvla_eval.arguments import ArgumentParser, one_of
from chatvla_eval.parallel import default_jobs
from chatvla_tables.execute import RATES, execute
from chatvla_tables.gather import table_results
from chatvla_tables.needs import missing
from chatvla_tables.pages import write_table
from chatvla_tables.plan import plan, spared, unit_name
from chatvla_tables.rates import Rates, estimate
from chatvla_tables.router_page import write_router
from chatvla_tables.settings import PlanSettings, evals_folder
from chatvla_tables.sizes import DEFAULT_SIZE, SIZES
from chatvla_tables.tables import ROUTER, TABLES
from chatvla_training.recipe import RecipeError, changed
from chatvla_training.recipes import find_recipe

__all__ = ["main"]

_OPTIONS = {"init": "--start", "seed": "--seeds", "data": "--data", "steps": "--steps"}
"""Fields of recipes that rows set themselves, and the option that asks for others."""
WORDS = {name.removeprefix("table"): name for name in TABLES} | {ROUTER: ROUTER}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tables; return 0 when every unit ran, 1 when some failed, 130 on Ctrl-C and SIGTERM."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    asked = WORDS if "all" in options.tables else dict.fromkeys(options.tables)
    names = [WORDS[word] for word in asked]
    try:
        settings = _settings(options)
        units = plan(names, settings)
    except (RecipeError, ValueError) as error:
        print(f"chatvla tables: {error}", file=sys.stderr)
        return 2
    folder, times = settings.out, evals_folder(settings)
    left = estimate(units, Rates(times / RATES), options.jobs)
    print(f"{len(units)} units, {sum(unit.done for unit in units)} done: {left}")
    if options.dry_run:
        unneeded = spared(units)
        for unit in units:
            state = "done" if unit.done else "spared" if unit.key in unneeded else "to do"
            print(f"  {state:<6}  {unit.kind:<14} {unit.amount:>6}  {unit_name(unit, folder)}")
    lacking = missing(units, settings)
    for sentence in lacking:
        print(f"chatvla tables: {sentence}", file=sys.stderr)
    if options.dry_run:
        return 0
    if lacking:
        return 2
    # Ended as by Ctrl-C: units stop in order, and their time is written down.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failed = execute(units, jobs=options.jobs, folder=folder, times=times, quiet=options.quiet)
    except KeyboardInterrupt:
        print("chatvla tables: stopped; the same command goes on", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    results = options.results or options.out.resolve() / "results"
    for name in names:
        if name != ROUTER:
            print(write_table(results, table_results(name, settings, failed=failed)))
        elif page := write_router(results, settings):
            print(page)
    shown = {unit.key: unit_name(unit, folder) for unit in units}
    for key, why in failed.items():
        print(f"chatvla tables: {shown[key]}: {why}", file=sys.stderr)
    return 1 if failed else 0


def _settings(options: argparse.Namespace) -> PlanSettings:
    values = dict(pair.split("=", 1) for pair in options.set)
    for key, option in _OPTIONS.items():
        if key in values:
            raise ValueError(f"--set {key} would be the same for every stage and seed of a row; give {option} instead")
    probe = find_recipe(SIZES[options.size]["stage1"])
    after = changed(probe, values)
    overrides = tuple((key.replace("-", "_"), getattr(after, key.replace("-", "_"))) for key in values)
    own = () if options.size == DEFAULT_SIZE else (options.size,)
    return PlanSettings(
        # Runs of several sizes have the same names.
        out=options.out.resolve().joinpath(*own),
        evals=options.evals.resolve() if options.evals else None,
        size=options.size,
        seeds=options.seeds,
        steps=options.steps,
        trials=options.trials,
        start=options.start,
        data=options.data,
        overrides=overrides,
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(prog="chatvla tables", description="Train and evaluate the rows of the paper's tables.")
    known = [*WORDS, "all"]
    parser.add_argument(
        "tables",
        nargs="+",
        type=one_of("table", known),
        metavar="TABLE",
        help=f"one or several, run in this order, of: {', '.join(known)}",
    )
    parser.add_argument("--size", type=one_of("size", SIZES), default=DEFAULT_SIZE, help=f"of: {', '.join(SIZES)}")
    parser.add_argument(
        "--out", type=filled_path, default=Path("runs/tables"), help="folder of all runs; the same one goes on"
    )
    parser.add_argument("--results", type=Path, help="folder for pages and figures (default: OUT/results)")
    parser.add_argument(
        "--evals", type=Path, help="folder of all evaluations and rates (default: OUT/evals); outlives the trainings"
    )
    parser.add_argument("--seeds", type=count, default=1, help="training seeds per row")
    parser.add_argument("--steps", type=positive, default=1.0, help="factor on every recipe's steps")
    parser.add_argument("--trials", type=positive, default=1.0, help="factor on the paper's numbers of trials")
    parser.add_argument("--start", default="", help="checkpoint that all rows start from (default: the recipe's)")
    parser.add_argument("--data", default="", help="robot data of all rows (default: the recipe's)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="recipe fields, the same for all rows"
    )
    parser.add_argument(
        "--jobs", type=count, default=default_jobs(), help="processes side by side (default: the cores)"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the units and stop")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_strictly(arguments)
    for pair in options.set:
        if "=" not in pair:
            parser.error(f"argument --set: expected KEY=VALUE, got {pair!r}")
    places = {"--out": options.out, "--results": options.results, "--evals": options.evals}
    for name, folder in places.items():
        if folder is not None and not options.dry_run:
            parser.require_writable(name, folder, folder=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
