# SPDX-License-Identifier: Apache-2.0
"""Write one trial's row of the report: scene, verdict and cause, pictures, text, scores, plot of the motion."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from chatvla_eval.plots.motion import motion_plot

__all__ = ["trial_row"]


def trial_row(
    trial: Mapping[str, Any], trace: Mapping[str, Any] | None, summary: Mapping[str, Any], *, behind: str | None
) -> str:
    """Return the HTML of one trial; `behind` is the link that broke with the right text forced, None when not run."""
    kind = f'data-success="{"yes" if trial["success"] else "no"}" data-link="{escape(trial.get("link", ""))}"'
    parts = [_head(trial), _cards(trial), _frames(trace), _texts(trial, trace), _facts(trial, summary, behind)]
    plot = motion_plot(trace) if trace is not None else ""
    if plot:
        parts.append(
            "<details><summary>Planned chunks against executed motion</summary>"
            f'<div class="scroll">{plot}</div></details>'
        )
    return f'<article class="trial" {kind} id="trial-{trial["index"]}">{"".join(parts)}</article>'


def _head(trial: Mapping[str, Any]) -> str:
    asked = trial.get("equation") or trial["instruction"]
    verdict = "success" if trial["success"] else f"failed: {trial['cause']}"
    tone = "good" if trial["success"] else "bad"
    return (
        f'<div class="head"><span class="soft">{trial["index"]}</span><span class="asked">{escape(str(asked))}</span>'
        f'<span class="verdict {tone}">{escape(verdict)}</span>'
        f'<span class="soft">{trial["seconds"]:.1f} s, seed {trial["seed"]}</span></div>'
    )


def _cards(trial: Mapping[str, Any]) -> str:
    """Return the scene's objects as chips; the right one is marked in words too."""
    cards = trial.get("cards")
    if not cards:
        return ""
    chips = [
        f'<li class="{"right" if card["value"] == trial["right_answer"] else ""}">{escape(card["place"])}: '
        f"{escape(card['value'])}{', the answer' if card['value'] == trial['right_answer'] else ''}</li>"
        for card in cards
    ]
    return f'<ul class="chips">{"".join(chips)}</ul>'


def _frames(trace: Mapping[str, Any] | None) -> str:
    if trace is None or not trace["frames"]:
        return ""
    figures = "".join(
        f'<figure><img alt="camera after {frame["time_s"]:.1f} s" src="data:image/jpeg;base64,{frame["jpeg"]}" '
        f'width="124" height="93"><figcaption>{frame["time_s"]:.1f} s</figcaption></figure>'
        for frame in trace["frames"]
    )
    return f'<div class="strip">{figures}</div>'


def _texts(trial: Mapping[str, Any], trace: Mapping[str, Any] | None) -> str:
    own = f"<blockquote>{escape(trial['text']) or '(no text)'}</blockquote>"
    later = trace["texts"][1:] if trace is not None else []
    if not later:
        return own
    items = "".join(f"<blockquote>{item['time_s']:.1f} s: {escape(item['text'])}</blockquote>" for item in later)
    return f"{own}<details><summary>{len(later)} later texts</summary>{items}</details>"


def _facts(trial: Mapping[str, Any], summary: Mapping[str, Any], behind: str | None) -> str:
    facts = [
        ("answer", trial["answer"] or "none"),
        ("chosen", trial.get("chosen") or "none"),
        ("picked", trial["picked"] or "nothing"),
    ]
    if not trial["picked"] and trial.get("approached"):
        facts.append(("went for", trial["approached"]))
    for name, rate in summary.items():
        if isinstance(rate, dict) and "of" in rate and name in trial:
            facts.append((name, f"{trial[name]:g}/{rate['of']}"))
    if trial.get("parts"):
        facts.append(("points for", ", ".join(f"{name} {points:g}" for name, points in trial["parts"].items())))
    if trial.get("link"):
        facts.append(("broken at", trial["link"]))
    if behind is not None:
        facts.append(("with the right text", "success" if not behind else f"failed: {behind}"))
    if trial.get("subsets"):
        facts.append(("marks", ", ".join(trial["subsets"])))
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)
    return f"<dl>{items}</dl>"
