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
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="write the figures into FILE")
    parser = argparse.ArgumentParser(
        prog="./chatvla bench", description="Measure figures of this machine.", parents=[common], add_help=False
    )
    parser.add_argument("name", nargs="?", help="benchmark; without it they are listed")
    parser.add_argument("-h", "--help", action="store_true", help="show this, or with a name that benchmark's options")
    options, further = parser.parse_known_args(arguments)
    known: dict[str, str] = report.names()
    if options.name is None:
        if options.help:
            parser.print_help()
            return 0
        print("Benchmarks:")
        for name, summary in known.items():
            print(f"  {name:<{max(map(len, known))}}  {summary}")
        return 0
    if options.name not in known:
        raise UsageError(f"there is no benchmark '{options.name}'{nearest(options.name, list(known))}")
    benchmark = importlib.import_module(f"benchmarks.{options.name}")
    own = argparse.ArgumentParser(
        prog=f"./chatvla bench {options.name}", description=known[options.name], parents=[common]
    )
    getattr(benchmark, "add_options", lambda parser: None)(own)
    settings = vars(own.parse_args([*further, *(["--help"] if options.help else [])]))
    del settings["json"]
    if options.json is not None:
        _require_writable(options.json)
    figures = benchmark.measure(**settings)
    report.check(figures)
    print(report.machine_line())
    print(report.table(figures))
    if options.json is not None:
        report.write_json(figures, options.json)
    return 0


def _require_writable(path: Path) -> None:
    """Make the folder of `path`; raise UsageError when no file can be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        path.open("a").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise UsageError(f"--json {path} cannot be written: {error.strerror}; name another file") from error
