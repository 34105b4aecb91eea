# SPDX-License-Identifier: Apache-2.0
"""Draw the curves of a run as an SVG picture, with nothing but text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

__all__ = ["loss_plot", "write_loss_plot"]

WIDTH, HEIGHT, MARGIN = 800, 420, 56
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2")
POINTS = 400
"""Points drawn per curve; longer ones are averaged down to so many."""


def loss_plot(curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str) -> str:
    """Return an SVG of curves of (step, value) on a logarithmic value axis; values at or below 0 are left out."""
    kept = {name: thinned([(x, y) for x, y in curve if y > 0 and math.isfinite(y)]) for name, curve in curves.items()}
    kept = {name: curve for name, curve in kept.items() if curve}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="20" font-size="14">{escape(title)}</text>',
    ]
    if kept:
        xs = [x for curve in kept.values() for x, _ in curve]
        ys = [math.log10(y) for curve in kept.values() for _, y in curve]
        left, right = min(xs), max(max(xs), min(xs) + 1)
        low, high = math.floor(min(ys) * 2) / 2, math.ceil(max(ys) * 2) / 2
        high = max(high, low + 0.5)

        def place(x: float, y: float) -> tuple[float, float]:
            across = MARGIN + (x - left) / (right - left) * (WIDTH - 2 * MARGIN)
            return across, HEIGHT - MARGIN - (y - low) / (high - low) * (HEIGHT - 2 * MARGIN)

        for number in range(round((high - low) * 2) + 1):
            value = low + number / 2
            _, down = place(left, value)
            parts.append(f'<path d="M{MARGIN} {down:.1f}H{WIDTH - MARGIN}" stroke="#ddd"/>')
            parts.append(f'<text x="{MARGIN - 6}" y="{down + 4:.1f}" text-anchor="end">{10**value:.2g}</text>')
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            step = left + share * (right - left)
            across, _ = place(step, low)
            parts.append(f'<text x="{across:.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{step:.0f}</text>')
        parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">step</text>')
        for number, (name, curve) in enumerate(kept.items()):
            colour = COLOURS[number % len(COLOURS)]
            points = " ".join("{:.1f},{:.1f}".format(*place(x, math.log10(y))) for x, y in curve)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            across = WIDTH - MARGIN - 150
            parts.append(f'<text x="{across}" y="{MARGIN + 16 * number}" fill="{colour}">{escape(name)}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def thinned(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most POINTS points: means of equal parts."""
    if len(curve) <= POINTS:
        return list(curve)
    size = math.ceil(len(curve) / POINTS)
    groups = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def write_loss_plot(path: Path, metrics: Sequence[Mapping[str, object]], *, title: str) -> None:
    """Draw every loss of metrics.jsonl's lines into `path`; validation curves are named so."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in metrics:
        step = float(line["step"])  # type: ignore[arg-type]
        validation = line.get("validation")
        named = (
            {f"validation {key}": value for key, value in validation.items()} if isinstance(validation, dict) else line
        )
        for name, value in named.items():
            if isinstance(value, int | float) and name.removeprefix("validation ") in ("loss", "language", "action"):
                curves.setdefault(name, []).append((step, float(value)))
    aside = path.with_suffix(".tmp")
    aside.write_text(loss_plot(curves, title=title), encoding="utf-8")
    aside.replace(path)
