# SPDX-License-Identifier: Apache-2.0
"""Turn the figures of a benchmark into a JSON file and a printed table, both from the same data.

A benchmark is a file here with `measure()`, which returns {"name": {"value", "unit", "bar", "better"}}: `bar` is the
value to reach or None, `better` is "lower" or "higher".
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["check", "machine_line", "names", "reached", "table", "write_json"]

FOLDER = Path(__file__).resolve().parent
KEYS = {"value", "unit", "bar", "better"}


def names() -> dict[str, str]:
    """Return the first line of each benchmark's docstring, by name."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"^def measure\(", text, re.MULTILINE):
            found[path.stem] = text.split('"""')[1].splitlines()[0].strip()
    return found


def check(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError for figures that are not of the agreed form."""
    for name, figure in figures.items():
        if set(figure) != KEYS or figure["better"] not in {"lower", "higher"}:
            raise ValueError(f"figure '{name}' has keys {sorted(figure)}, expected {sorted(KEYS)}")


def reached(figure: Mapping[str, Any]) -> str:
    """Return 'yes' or 'no': whether the value reaches the bar; '' without a bar."""
    if figure["bar"] is None:
        return ""
    lower = figure["better"] == "lower"
    return "yes" if (figure["value"] <= figure["bar"] if lower else figure["value"] >= figure["bar"]) else "no"


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as aligned text."""
    rows = [("figure", "value", "unit", "bar", "reached")]
    for name, figure in figures.items():
        sign = "<=" if figure["better"] == "lower" else ">="
        bar = "" if figure["bar"] is None else f"{sign} {figure['bar']:g}"
        rows.append((name, f"{figure['value']:.4g}", figure["unit"], bar, reached(figure)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def machine_line() -> str:
    """Return commit, processor, cores, load and Python: where the figures come from."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=FOLDER, capture_output=True, text=True)
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        processor = models[0] if models else processor
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    commit = done.stdout.strip() or "unknown"
    return f"commit {commit}, {processor}, {cores} cores, load {load:.1f}, Python {platform.python_version()}"


def write_json(figures: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write the figures, and nothing else, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
