# SPDX-License-Identifier: Apache-2.0
"""Show every question with its answers and scores, as HTML. All text is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["answers_html"]

_MOST = 2000
"""Rows of a file: a browser shows more slowly than anybody reads."""


def answers_html(results: Mapping[str, Any]) -> str:
    """Return a table of questions, references, answers and scores for each file of an understanding.json."""
    return "".join(_table(entry, base=bool(results["base"])) for entry in results["sets"])


def _table(entry: Mapping[str, Any], *, base: bool) -> str:
    answers = entry["policy_answers"]
    theirs = entry["base_answers"] if base else [None] * len(answers)
    heads = ["question", "reference", "answer", "score", *(["base", "score"] if base else [])]
    rows = [_row(own, other) for own, other in zip(answers[:_MOST], theirs, strict=False)]
    left = f"<p>{len(answers) - _MOST} more are in understanding.json.</p>" if len(answers) > _MOST else ""
    head = "".join(f"<th>{word}</th>" for word in heads)
    return (
        f"<h2>Answers: {escape(entry['file'])}</h2><details><summary>{len(answers)} questions</summary>"
        f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>{left}</details>'
    )


def _row(own: Mapping[str, Any], other: Mapping[str, Any] | None) -> str:
    cells = [own["question"], " / ".join(map(str, own["references"])), own["answer"], f"{own['score']:g}"]
    cells += [] if other is None else [other["answer"], f"{other['score']:g}"]
    return f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>"
