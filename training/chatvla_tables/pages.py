# SPDX-License-Identifier: Apache-2.0
"""Write a table's results as Markdown with a plot beside it, the paper's numbers next to ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from chatvla_eval.plots.bars import Bar, bars
from chatvla_tables.page_parts import claim_line, facts_lines, replay_lines, tried_lines
from chatvla_tables.paper import measure_word

__all__ = ["table_page", "write_table"]


def write_table(folder: Path, results: Mapping[str, Any]) -> Path:
    """Write NAME_SIZE.json, .md and .svg into `folder` and return the page's path.

    NAME_SIZE_notes.md, written by hand, becomes a part of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{results['name']}_{results['size']}"
    (folder / f"{stem}.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / f"{stem}.svg").write_text(_plot(results), encoding="utf-8")
    path = folder / f"{stem}.md"
    page = table_page(results, plot=f"{stem}.svg", tried=folder / f"{stem}_notes.md")
    path.write_text(page, encoding="utf-8")
    return path


def table_page(results: Mapping[str, Any], *, plot: str, tried: Path | None = None) -> str:
    """Return the page of one table; `tried` is the file of hand-written notes."""
    trials = ", ".join(f"{cell.replace('_', ' ')} {count}" for cell, count in results["trials"].items())
    lines = [
        f"# {results['title']} ({results['name']}, size {results['size']})",
        "",
        *facts_lines(results),
        f"Trials a training seed: {trials}. All seeds of a row see the same scenes, so pooled trials are not as "
        "independent as the intervals take them to be.",
        f"Paper: {results['paper']}. Intervals: 95%, Wilson for successes, bootstrap over trials for points. "
        "Tests pair trials of the same scene and training seed.",
        "",
        *(line for note in results["notes"] for line in (note, "")),
    ]
    for cell in results["trials"]:
        lines += [f"## {cell.replace('_', ' ').capitalize()}", "", *_cell_table(results, cell), ""]
    lines += [*_extras(results), *replay_lines(results), f"![Success]({plot})", ""]
    if results["claims"]:
        lines += [f"## What the paper finds and what shows here, {list(results['trials'])[-1].replace('_', ' ')}", ""]
        lines += [*(claim_line(claim) for claim in results["claims"]), ""]
    lines += [*tried_lines(tried), *_trained(results)]
    failures = [f"- {row['label']}: {why}" for row in results["rows"] for why in row.get("failed", ())]
    if failures:
        lines += ["## Rows that failed", "", *failures, ""]
    return "\n".join(lines)


def _cell_table(results: Mapping[str, Any], cell: str) -> list[str]:
    measures = results["measures"]
    heads = [f"{measure_word(name)} of {most}" for name, most in measures.items()]
    heads = ["row", "seeds", "success", "95%", *heads, "paper, real robot", "against the first row"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in results["rows"]:
        entry = row["cells"][cell]
        label = row["label"] + (" (privileged)" if row["privileged"] and "privileged" not in row["label"] else "")
        paper = entry["paper"]["said"] if entry["paper"] else "-"
        lines.append(f"| {label} | {' | '.join(_values(entry, measures))} | {paper} | {_against(entry)} |")
    return lines


def _extras(results: Mapping[str, Any]) -> list[str]:
    """Return what is left of the start's understanding, and how long a decision takes, where rows have it."""
    rows = [row for row in results["rows"] if "understanding" in row or "latency" in row]
    if not rows:
        return []
    lines = [
        "## Understanding and time",
        "",
        "Short questions, exact match: on scenes of a seed that nothing was trained on, and a few without a picture, "
        "sums and scenes told in words, whose like training has. The start is what all rows were trained from. Time of "
        "a decision in one thread, alone on the machine: the first writes a text, the next keeps it.",
        "",
        "| row | right | start | retained | difference, 95% | first decision [s] | next [s] |",
        "|" + "---|" * 7,
    ]
    for row in rows:
        cells = ["-"] * 4
        if "understanding" in row:
            asked = row["understanding"]
            apart = asked["difference"]
            cells = [f"{100 * asked[who]['mean']:.1f}% of {asked['n']}" for who in ("policy", "base")]
            cells += ["-" if asked["retention"] is None else f"{100 * asked['retention']:.0f}%{_ends(asked)}"]
            cells += [f"{100 * apart['low']:+.0f} to {100 * apart['high']:+.0f} points"]
        times = [f"{row['latency'][key]:.2f}" for key in ("first_s", "next_s")] if "latency" in row else ["-", "-"]
        lines.append(f"| {row['label']} | {' | '.join([*cells, *times])} |")
    return [*lines, ""]


def _ends(asked: Mapping[str, Any]) -> str:
    """Return the interval of the retention in percent; a bound that does not exist is a dash."""
    ends = asked["retention_interval"].values()
    return f" [{', '.join('-' if end is None else f'{100 * end:.0f}' for end in ends)}]"


def _trained(results: Mapping[str, Any]) -> list[str]:
    """Return steps times batch of every row's stages, and what the row changes in them."""
    lines = ["## What was trained", "", "| row | steps x batch | samples | changed |", "|" + "---|" * 4]
    for row in results["rows"]:
        if not row["recipes"]:
            continue
        stages = ", ".join(f"{stage['recipe']} {stage['steps']} x {stage['batch']}" for stage in row["recipes"])
        changes = {f"{key}={value}": None for stage in row["recipes"] for key, value in stage["changes"].items()}
        lines.append(f"| {row['label']} | {stages} | {row['samples']} | {', '.join(changes) or '-'} |")
    return [*lines, ""] if len(lines) > 4 else []


def _values(entry: Mapping[str, Any], measures: Iterable[str]) -> list[str]:
    """Return seeds, success, interval and `measures` as text."""
    if "expected" in entry:
        expected = f"{entry['expected']['successes']:.1f}/{entry['expected']['n']} expected"
        return ["-", expected, "", *("-" for _ in measures)]
    if "success" not in entry:
        return ["-", "not run: no complete evaluation", "", *("" for _ in measures)]
    rate, seeds = entry["success"], entry["seeds"]
    each = f" ({', '.join(map(str, entry['per_seed']))})" if len(seeds) > 1 else ""
    points = [f"{entry[key]['mean']:.2f}" if key in entry else "-" for key in measures]
    interval = f"{100 * rate['low']:.0f}–{100 * rate['high']:.0f}%"
    return [", ".join(map(str, seeds)) or "-", f"{rate['k']}/{rate['n']}{each}", interval, *points]


def _against(entry: Mapping[str, Any]) -> str:
    test = entry.get("against_reference", {}).get("success")
    if test is None:
        return "-"
    return f"{test['only_first']} only it, {test['only_second']} only this, p = {test['p']:.2g}"


def _plot(results: Mapping[str, Any]) -> str:
    """Return the success of the last cell with intervals; diamonds are the paper's."""
    cell = list(results["trials"])[-1]
    items = []
    for row in results["rows"]:
        entry = row["cells"][cell]
        paper = entry["paper"]["success"] if entry["paper"] else None
        mark = paper["k"] / paper["n"] if paper else None
        name = row["name"].replace("_", " ")
        if "success" in entry:
            rate = entry["success"]
            note = f"{rate['k']}/{rate['n']}"
            items.append(
                Bar(label=name, value=rate["k"] / rate["n"], low=rate["low"], high=rate["high"], note=note, mark=mark)
            )
        elif "expected" in entry:
            share = entry["expected"]["successes"] / entry["expected"]["n"]
            items.append(Bar(label=name, value=share, note="expected", mark=mark, series=1))
        else:
            items.append(Bar(label=name, value=0.0, note="not run", mark=mark))
    title = f"Success, {cell.replace('_', ' ')}, simulation"
    return bars(items, title=title, mark="paper, real robot", standalone=True)
