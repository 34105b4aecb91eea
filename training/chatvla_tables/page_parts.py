# SPDX-License-Identifier: Apache-2.0
"""Say on a page what its figures rest on, what became of the paper's findings, and what was tried by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chatvla_tables.paper import measure_word

__all__ = ["claim_line", "facts_lines", "replay_lines", "short_commit", "tried_lines"]

_HASH = re.compile(r"^([0-9a-f]{12})[0-9a-f]{28}(?=$|[-+])")
_TRIAL_BELOW = 0.1
"""Factor on the recipes' steps below which figures say nothing."""


def short_commit(commit: str) -> str:
    """Return a commit with twelve digits of its hash and all that marks it as changed."""
    return _HASH.sub(r"\1", commit)


def facts_lines(results: Mapping[str, Any]) -> list[str]:
    """Return the settings, machine time and commits of `gather.run_facts` as text, an empty line behind."""
    asked, commits = results["settings"], results["commits"]
    sha256 = f" (SHA-256 {asked['start_sha256'][:12]})" if asked["start_sha256"] else ""
    overrides = ", ".join(f"{key}={value}" for key, value in asked["overrides"].items())
    lines = [
        f"Ours: simulation. Start {asked['start']}{sha256}, demonstrations {asked['data'] or 'none named'}, "
        f"{asked['seeds']} training seed{'s' if asked['seeds'] > 1 else ''} asked for; evaluation seed "
        f"{asked['eval_seed']}, whose scenes no training shows.",
        *([f"Changed in all rows alike: {overrides}."] if overrides else []),
        f"{results['hours']:.1f} h of one core for what this page needs. "
        f"Commits: page {short_commit(results['commit'])}, trainings {_commits(commits['trainings'])}, "
        f"evaluations {_commits(commits['evaluations'])}.",
        "",
    ]
    lines += [line for name, found in asked.get("data_sha256", {}).items() for line in _recorded(name, found)]
    if asked["steps_factor"] != 1:
        lines += [f"**{_steps(asked['steps_factor'])}**", ""]
    if asked["trials_factor"] != 1:
        lines += [f"**Trials are {asked['trials_factor']:g} times the paper's numbers.**", ""]
    return lines


def _recorded(name: str, found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return which runs saw which recording of a data set, where there are several."""
    if len(found) < 2:
        return []
    shown = "; ".join(f"{sha256[:12]}: {', '.join(runs)}" for sha256, runs in found.items())
    return [f"**Not all rows were trained on the same recording of {name}** (SHA-256 {shown}).", ""]


def _steps(factor: float) -> str:
    """Return what a factor on the recipes' steps makes of the figures."""
    if factor < _TRIAL_BELOW:
        return f"Steps are {factor:g} times the recipes': a trial of the machinery, no result."
    than = "less" if factor < 1 else "more"
    return f"All rows have {factor:g} times the recipes' steps: {than} training than the shipped checkpoint's."


def _commits(commits: Sequence[str]) -> str:
    return ", ".join(map(short_commit, commits)) or "not recorded"


def claim_line(claim: Mapping[str, Any]) -> str:
    """Return one finding of the paper with our verdict and what it rests on."""
    if claim["verdict"] == "not run":
        return f"- {claim['paper']}. Here: **not run**."
    if claim["kind"] == "drop":
        return f"- {claim['paper']}. Here it **{claim['verdict']}**: {_falls(claim)}."
    if "p" in claim:
        why = f" ({_p(claim['p'])}, McNemar)"
    else:
        why = f" ({measure_word(claim['measure'])} {_interval(claim['difference'])} against the first row)"
    return f"- {claim['paper']}. Here it **{claim['verdict']}**{why}."


def _falls(claim: Mapping[str, Any]) -> str:
    with_it, without = (
        f"{fall['before']}/{fall['n']} to {fall['after']}/{fall['n']} ({_p(fall['p'])}, McNemar)"
        for fall in (claim["reference"], claim["own"])
    )
    apart = _interval({key: 100 * value for key, value in claim["difference"].items()}, digits=0)
    return f"the first row goes from {with_it}, {claim['row']} from {without}; its fall is {apart} points deeper"


def _p(value: float) -> str:
    """Return a p value as text; those that were rounded to nothing as less than the last digit."""
    return f"p = {value:.2g}" if value else "p < 1e-6"


def _interval(found: Mapping[str, float], *, digits: int = 2) -> str:
    value, low, high = (f"{found[key]:+.{digits}f}" for key in ("difference", "low", "high"))
    return f"{value} [{low}, {high}]"


def replay_lines(results: Mapping[str, Any]) -> list[str]:
    """Return how chunks follow a forced reasoning, where rows were replayed."""
    rows = [row for row in results["rows"] if "counterfactual" in row]
    if not rows:
        return []
    lines = [
        "## The same frame under another reasoning",
        "",
        f"First frames of trials ({rows[0]['counterfactual']['split'].replace('_', ' ')}), training seed 0. Flip: the "
        "right reasoning heads for the target, that of another card for the other. Divergence: between the tools' ways "
        "under the two; the floor is the right reasoning with other noise.",
        "",
        "| row | flips | 95% | right reasoning heads for the target | divergence [mm] | noise floor [mm] |",
        "|" + "---|" * 6,
    ]
    for row in rows:
        found = row["counterfactual"]["summary"]
        flip, heads = found["flip"], found["base_heads_for_target"]
        cells = [f"{flip['k']}/{flip['n']}", f"{100 * flip['low']:.0f}–{100 * flip['high']:.0f}%"]
        cells += [f"{heads['k']}/{heads['n']}", _mm(found["doses"]["swapped"]["divergence_mm"]), _mm(found["floor_mm"])]
        lines.append(f"| {row['label']} | {' | '.join(cells)} |")
    for test in results.get("counterfactual", ()):
        first, second = test["rows"]
        lines += [
            "",
            f"Flips of {first} alone {test['only_first']}, of {second} alone {test['only_second']}, of both "
            f"{test['both']}: p = {test['p']:.2g} (McNemar).",
        ]
    return [*lines, ""]


def _mm(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.1f} [{value['low']:.1f}, {value['high']:.1f}]"


def tried_lines(path: Path | None) -> list[str]:
    """Return the hand-written notes in `path` under their heading; nothing where there are none."""
    if path is None or not path.is_file():
        return []
    return ["## What was tried", "", path.read_text(encoding="utf-8").strip(), ""]
