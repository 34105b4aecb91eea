# SPDX-License-Identifier: Apache-2.0
"""Add up counterfactual frames: flip rate, divergence against the noise floor, dose-response; data, Markdown, plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from chatvla_eval.counterfactual.doses import BASE, DOSE_NAMES, SWAPPED
from chatvla_eval.demonstrations import DEMONSTRATION_NOTE
from chatvla_eval.paired import mcnemar
from chatvla_eval.plots.bars import Bar, bars
from chatvla_eval.statistics import mean_interval, proportion

__all__ = ["comparison", "divergence_plot", "heading_plot", "markdown", "summary"]

_DIGITS = 6
Frames = Sequence[Mapping[str, Any]]


def summary(frames: Frames) -> dict[str, Any]:
    """Return the figures of one policy.

    flip: the swapped reasoning sends the chunk to the other object, the base to the target. floor_mm: divergence of the
    base text with other noise, a frame's mean. per dose: divergence, and how many chunks head for target and other.
    """
    floors = [sum(frame["floor_mm"]) / len(frame["floor_mm"]) for frame in frames if frame["floor_mm"]]
    doses = {}
    for name in DOSE_NAMES:
        cells = [(frame, frame["doses"][name]) for frame in frames]
        doses[name] = {
            "divergence_mm": _mean([cell["divergence_mm"] for _, cell in cells]),
            "target": _share([cell["heading"] == frame["target"] for frame, cell in cells]),
            "other": _share([cell["heading"] == frame["other"] for frame, cell in cells]),
        }
    return {
        "flip": _share([_flips(frame) for frame in frames]),
        "base_heads_for_target": _share([frame[BASE]["heading"] == frame["target"] for frame in frames]),
        "own_heads_for_target": _share([frame["own"]["heading"] == frame["target"] for frame in frames]),
        "floor_mm": _mean(floors),
        "between_objects_mm": _mean([frame["between_objects_mm"] for frame in frames]),
        "doses": doses,
    }


def comparison(first: Frames, second: Frames) -> dict[str, Any]:
    """Return McNemar's test of the flips of two policies on the same frames."""
    return asdict(mcnemar([_flips(frame) for frame in first], [_flips(frame) for frame in second]))


def markdown(results: Mapping[str, Any]) -> str:
    """Return the results as a page: one table of rates, one of doses for each policy."""
    lines = [f"# Counterfactual replay: {results['task']}, {results['split']}, simulation", ""]
    lines += [
        f"First frames of {results['frames_asked']} trials, seed {results['seed']}, commit {results['commit']}.",
        "",
    ]
    if results.get("demonstration_scenes"):
        lines += [f"Frames: {DEMONSTRATION_NOTE}.", ""]
    for policy in results["policies"]:
        found = policy["summary"]
        name = f"{policy['policy']}{' (privileged)' if policy['privileged'] else ''}"
        lines += [f"## {name}", "", "| measure | value | 95% interval |", "|---|---|---|"]
        lines += [_rate_row("target flip rate (reasoning of another object)", found["flip"])]
        lines += [_rate_row("right reasoning heads for the target", found["base_heads_for_target"])]
        lines += [_rate_row("own reasoning heads for the target", found["own_heads_for_target"])]
        for key, words in (("floor_mm", "noise floor"), ("between_objects_mm", "expert's motions to the two objects")):
            value = found[key]
            lines += [f"| {words} | {value['mean']:.1f} mm | {value['low']:.1f} – {value['high']:.1f} |"]
        lines += [
            "",
            "| reasoning | divergence from the right one | heads for target | heads for other |",
            "|---|---|---|---|",
        ]
        for dose, cell in found["doses"].items():
            away = cell["divergence_mm"]
            shares = " | ".join(f"{cell[who]['k']}/{cell[who]['n']}" for who in ("target", "other"))
            lines += [f"| {dose} | {away['mean']:.1f} mm [{away['low']:.1f}, {away['high']:.1f}] | {shares} |"]
        lines += [""]
    if "comparison" in results:
        test = results["comparison"]
        lines += [
            f"Flips of the first policy alone {test['only_first']}, of the second alone {test['only_second']}, "
            f"of both {test['both']}, of neither {test['neither']}: p = {test['p']:.3g} (McNemar, exact).",
            "",
        ]
    return "\n".join(lines)


def heading_plot(results: Mapping[str, Any], *, standalone: bool = True) -> str:
    """Return the share of chunks that head for the other object, by dose, a colour per policy."""
    items = []
    for name in DOSE_NAMES:
        for series, policy in enumerate(results["policies"]):
            rate = policy["summary"]["doses"][name]["other"]
            items.append(
                Bar(
                    label=_label(name, policy, results),
                    value=rate["k"] / max(rate["n"], 1),
                    low=rate["low"],
                    high=rate["high"],
                    note=f"{rate['k']}/{rate['n']}",
                    series=series,
                )
            )
    return bars(items, title="Chunks that head for the other object", standalone=standalone)


def divergence_plot(results: Mapping[str, Any], *, standalone: bool = True) -> str:
    """Return the divergence by dose with the noise floor as diamond."""
    items = []
    for name in DOSE_NAMES:
        for series, policy in enumerate(results["policies"]):
            cell, floor = policy["summary"]["doses"][name]["divergence_mm"], policy["summary"]["floor_mm"]
            items.append(
                Bar(
                    label=_label(name, policy, results),
                    value=cell["mean"],
                    low=cell["low"],
                    high=cell["high"],
                    note=f"{cell['mean']:.1f} mm",
                    mark=floor["mean"],
                    series=series,
                )
            )
    limit = max([1.0, *(1.05 * item.high for item in items if item.high is not None)])
    title = "Divergence of the tool paths from the right reasoning's [mm]"
    return bars(items, title=title, limit=limit, percent=False, mark="noise floor", standalone=standalone)


def _label(dose: str, policy: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    return dose if len(results["policies"]) == 1 else f"{dose}, {policy['policy']}"


def _flips(frame: Mapping[str, Any]) -> bool:
    return frame[BASE]["heading"] == frame["target"] and frame["doses"][SWAPPED]["heading"] == frame["other"]


def _rate_row(words: str, rate: Mapping[str, float]) -> str:
    share = 100 * rate["k"] / rate["n"] if rate["n"] else 0.0
    return (
        f"| {words} | {rate['k']}/{rate['n']} = {share:.0f}% | {100 * rate['low']:.0f}% – {100 * rate['high']:.0f}% |"
    )


def _share(hits: Sequence[bool]) -> dict[str, float]:
    return {key: round(value, _DIGITS) for key, value in asdict(proportion(sum(hits), len(hits))).items()}


def _mean(values: Sequence[float]) -> dict[str, float]:
    found = asdict(mean_interval(values))
    return {key: 0.0 if value != value else round(value, _DIGITS) for key, value in found.items()}
