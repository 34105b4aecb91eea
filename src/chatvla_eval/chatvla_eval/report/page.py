# SPDX-License-Identifier: Apache-2.0
"""Put results.json and the traces of its trials together as one HTML page. All text of a policy is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from chatvla_eval.demonstrations import DEMONSTRATION_NOTE
from chatvla_eval.report.assets import FILTER_SCRIPT
from chatvla_eval.report.frame import THEME_BUTTON, framed, write_aside
from chatvla_eval.report.summary import against_section, forced_section, links_section, summary_section
from chatvla_eval.report.trial_row import trial_row
from chatvla_eval.results import RESULTS_NAME
from chatvla_eval.summary_table import policy_label, seeds_label, swap_label
from chatvla_eval.trace import read_trace

__all__ = ["REPORT_NAME", "report_html", "write_report"]

REPORT_NAME = "report.html"


def write_report(folder: Path) -> Path:
    """Write report.html beside the results.json of `folder` and return its path. Raises OSError without results."""
    results = json.loads((folder / RESULTS_NAME).read_text(encoding="utf-8"))
    traces = {trial["index"]: read_trace(folder, trial["index"]) for trial in results["trials"]}
    return write_aside(folder / REPORT_NAME, report_html(results, traces))


def report_html(results: Mapping[str, Any], traces: Mapping[int, Mapping[str, Any] | None]) -> str:
    """Return the page of a results.json; `traces` by the trials' index, None where none was kept."""
    title = f"{results['task']}, {results['split']}: {policy_label(results)}"
    behind = results.get("forced_correct", {}).get("behind", {})
    rows = [
        trial_row(trial, traces.get(trial["index"]), results["summary"], behind=behind.get(str(trial["index"])))
        for trial in results["trials"]
    ]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_about(results))}</p>',
        summary_section(results),
        links_section(results),
        against_section(results),
        forced_section(results),
        "<h2>Trials</h2>",
        _tools(results),
        *rows,
        '<p class="none" hidden>No trial is of this kind.</p>',
    ]
    return framed(title, "".join(parts), script=FILTER_SCRIPT)


def _about(results: Mapping[str, Any]) -> str:
    where = "simulation" if results["simulation"] else "real robot"
    how = {"ros": "through ROS, real time", "in_process": "in process, simulated clock", "bag": "from bags"}
    parts = [where, how.get(results["transport"], results["transport"]), seeds_label(results)]
    parts += (
        ["an inference takes {:g} s, with a new text {:g} s".format(*results["delay_s"])]
        if "delay_s" in results
        else []
    )
    parts += [DEMONSTRATION_NOTE] if results.get("demonstration_scenes") else []
    parts += [swap_label(results)] if results["swap"] else []
    parts += ["the right reasoning is forced"] if results.get("force_correct") else []
    parts += [f"forced reasoning: {results['forced_reasoning']}"] if results["forced_reasoning"] else []
    parts += (
        [] if results["complete"] else [f"INCOMPLETE: {len(results['trials'])} of {results['trials_asked']} trials"]
    )
    return " · ".join([*parts, f"commit {results['commit'][:12]}"])


def _tools(results: Mapping[str, Any]) -> str:
    trials = results["trials"]
    failures = sum(not trial["success"] for trial in trials)
    kinds = [("all", f"All {len(trials)}"), ("failures", f"Failures {failures}")]
    kinds += [(link, f"{link} {count}") for link, count in results["summary"].get("links", {}).items()]
    buttons = "".join(
        f'<button type="button" data-show="{escape(kind)}" aria-pressed="{str(kind == "all").lower()}">{escape(words)}'
        "</button>"
        for kind, words in kinds
    )
    return f'<div class="tools">{buttons}{THEME_BUTTON}</div>'
