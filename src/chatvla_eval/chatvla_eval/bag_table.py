# SPDX-License-Identifier: Apache-2.0
"""Write what each of several bags gives on its own: by_bag.json, .md and .html beside results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chatvla_eval.demonstrations import DEMONSTRATION_NOTE
from chatvla_eval.report.from_markdown import write_pages
from chatvla_eval.summary_table import policy_label

__all__ = ["bag_row", "bag_table", "write_bag_table"]

_KEPT = (
    "split",
    "policy",
    "system",
    "privileged",
    "simulation",
    "seed",
    "demonstration_scenes",
    "swap",
    "forced_reasoning",
    "force_correct",
    "summary",
)


def bag_row(bag: str, results: Mapping[str, Any], unread: Mapping[str, str]) -> dict[str, Any]:
    """Return the row of one bag from its results; `unread` are topics that were left out in part, and why."""
    return {"bag": bag, **{key: results[key] for key in _KEPT}, "unread": dict(unread)}


def bag_table(rows: Sequence[Mapping[str, Any]], *, task: str, commit: str) -> str:
    """Return the rows as a Markdown page: where, who, success and points with their 95% intervals."""
    measures = [name for name, rate in rows[0]["summary"].items() if isinstance(rate, dict) and "of" in rate]
    heads = ["bag", "policy", "from", "split", "success", *(f"{name} of {_of(rows[0], name)}" for name in measures)]
    lines = [f"# Bags: {task}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        place = "simulation" if row["simulation"] else "real robot"
        split = f"{row['split']}{', cards swapped' if row['swap'] else ''}"
        cells = [row["bag"], policy_label(row), place, split, _share(row["summary"]["success"])]
        lines.append(f"| {' | '.join([*cells, *(_mean(row['summary'][name]) for name in measures)])} |")
    lines += ["", f"Brackets: 95% intervals over the bag's trials. Commit {commit}.", ""]
    lines += [f"{row['bag']}: {DEMONSTRATION_NOTE}.\n" for row in rows if row["demonstration_scenes"]]
    lines += [f"{row['bag']}: forced reasoning: {row['forced_reasoning']}\n" for row in rows if row["forced_reasoning"]]
    lines += [f"{row['bag']}: the right reasoning is forced.\n" for row in rows if row["force_correct"]]
    lines += [
        f"{row['bag']}: {topic} left out in part: {why}.\n" for row in rows for topic, why in row["unread"].items()
    ]
    return "\n".join(lines)


def write_bag_table(folder: Path, rows: Sequence[Mapping[str, Any]], *, task: str, commit: str) -> Path:
    """Write by_bag.json, by_bag.md and by_bag.html into `folder`; return the last one's path."""
    content = {"task": task, "commit": commit, "bags": list(rows)}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / "by_bag.json").write_text(text, encoding="utf-8")
    return write_pages(folder, "by_bag", bag_table(rows, task=task, commit=commit))


def _of(row: Mapping[str, Any], measure: str) -> int:
    return int(row["summary"][measure]["of"])


def _share(rate: Mapping[str, Any]) -> str:
    return f"{rate['k']}/{rate['n']} [{100 * rate['low']:.0f}%, {100 * rate['high']:.0f}%]"


def _mean(rate: Mapping[str, Any]) -> str:
    return "-" if rate["mean"] is None else f"{rate['mean']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
