# SPDX-License-Identifier: Apache-2.0
"""The benchmark report: one set of figures, a table and a JSON file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report

FIGURES = {
    "latency": {"value": 3.5, "unit": "ms", "bar": 5.0, "better": "lower"},
    "rate": {"value": 10.0, "unit": "Hz", "bar": 50.0, "better": "higher"},
    "size": {"value": 7.0, "unit": "MB", "bar": None, "better": "lower"},
}


def test_table_says_what_is_reached() -> None:
    lines = report.table(FIGURES).splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["yes", "no"]
    assert "<= 5" in lines[1]
    assert ">= 50" in lines[2]


def test_json_holds_the_figures_and_nothing_else(tmp_path: Path) -> None:
    report.write_json(FIGURES, tmp_path / "deep" / "figures.json")
    assert json.loads((tmp_path / "deep" / "figures.json").read_text()) == FIGURES


def test_other_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="latency"):
        report.check({"latency": {"value": 1.0, "unit": "ms"}})


def test_every_benchmark_says_what_it_measures() -> None:
    known = report.names()
    assert "frame" in known
    assert all(summary.startswith("Measure") for summary in known.values())
