# SPDX-License-Identifier: Apache-2.0
"""`./chatvla bench NAME [--json FILE] [options]`: run a file of benchmarks/ and print its figures.

A benchmark with options of its own has `add_options(parser)`; `measure` then gets them as keywords.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from chatvla_cli.errors import UsageError
from chatvla_cli.main import checkout
from chatvla_cli.verbs import nearest

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return 0 when the figures were measured, whatever they are."""
    sys.path.append(str(checkout()))
    report = importlib.import_module("benchmarks.report")
    parser = argparse.ArgumentParser(prog="./chatvla bench", description="Measure figures of this machine.")
    parser.add_argument("name", nargs="?", help="benchmark; without it they are listed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures into FILE")
    options, further = parser.parse_known_args(arguments)
    known: dict[str, str] = report.names()
    if options.name is None:
        print("Benchmarks:")
        for name, summary in known.items():
            print(f"  {name:<{max(map(len, known))}}  {summary}")
        return 0
    if options.name not in known:
        raise UsageError(f"there is no benchmark '{options.name}'{nearest(options.name, list(known))}")
    benchmark = importlib.import_module(f"benchmarks.{options.name}")
    own = argparse.ArgumentParser(prog=f"./chatvla bench {options.name}")
    getattr(benchmark, "add_options", lambda parser: None)(own)
    figures = benchmark.measure(**vars(own.parse_args(further)))
    report.check(figures)
    print(report.machine_line())
    print(report.table(figures))
    if options.json is not None:
        report.write_json(figures, options.json)
    return 0
