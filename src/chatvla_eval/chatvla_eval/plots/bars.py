# SPDX-License-Identifier: Apache-2.0
"""Draw rates with their intervals as horizontal bars, and tables of numbers as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatvla_eval.plots.svg import SERIES, number, picture, text, ticks

__all__ = ["Bar", "bars", "heat_map"]

ROW = 28.0
LABEL_WIDTH = 190.0
WIDTH = 720.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: its name, value, bounds of the interval, the words at its end, and a mark to compare with."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    mark: float | None = None
    """Another value on the same scale, drawn as a diamond; None for none."""
    series: int = 0


def bars(
    items: Sequence[Bar],
    *,
    title: str,
    limit: float = 1.0,
    percent: bool = True,
    mark: str = "",
    standalone: bool = False,
) -> str:
    """Return horizontal bars from 0 to `limit` with their intervals; `mark` names the diamonds, where there are any."""
    left, right, top = LABEL_WIDTH, WIDTH - 120.0, 44.0
    height = top + ROW * len(items) + 34

    def across(value: float) -> float:
        return left + (right - left) * min(max(value, 0.0), limit) / limit

    parts = [text(12, 20, title, size=14, bold=True)]
    if mark and any(item.mark is not None for item in items):
        parts += [
            _diamond(WIDTH - 14 - 6.2 * len(mark), 16),
            text(WIDTH - 4 - 6.2 * len(mark), 20, mark, colour="--soft"),
        ]
    for tick in ticks(0.0, limit):
        x = across(tick)
        label = f"{100 * tick:.0f}%" if percent else f"{tick:g}"
        parts.append(f'<path d="M{number(x)} {number(top - 6)}V{number(height - 28)}" stroke="var(--line)"/>')
        parts.append(text(x, height - 10, label, anchor="middle", colour="--soft"))
    for row, item in enumerate(items):
        y = top + ROW * row
        parts.append(text(left - 10, y + 15, item.label, anchor="end"))
        colour = SERIES[item.series % len(SERIES)]
        width = max(across(item.value) - left, 1.0)
        parts.append(
            f'<rect x="{number(left)}" y="{number(y + 3)}" width="{number(width)}" height="16" rx="2" '
            f'fill="var({colour})" fill-opacity=".75"/>'
        )
        if item.low is not None and item.high is not None:
            low, high = across(item.low), across(item.high)
            parts.append(
                f'<path d="M{number(low)} {number(y + 11)}H{number(high)}M{number(low)} {number(y + 6)}v10'
                f'M{number(high)} {number(y + 6)}v10" stroke="var(--ink)" stroke-width="1.5"/>'
            )
        if item.mark is not None:
            parts.append(_diamond(across(item.mark), y + 11))
        parts.append(text(right + 8, y + 15, item.note, colour="--soft"))
    return picture(WIDTH, height, parts, title=title, standalone=standalone)


def heat_map(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    limit: float,
    standalone: bool = False,
) -> str:
    """Return a table whose cells are the darker the nearer they are to `limit`, each with its number."""
    left, top, cell, line = 96.0, 64.0, 58.0, 26.0
    width = max(left + cell * len(columns) + 16, 12 + 8.0 * len(title))
    parts = [text(12, 20, title, size=14, bold=True)]
    parts += [
        text(left + cell * (k + 0.5), top - 10, name, anchor="middle", colour="--soft")
        for k, name in enumerate(columns)
    ]
    for row, (name, numbers) in enumerate(zip(rows, values, strict=True)):
        y = top + line * row
        parts.append(text(left - 10, y + 17, name, anchor="end", colour="--soft"))
        for column, value in enumerate(numbers):
            x, strength = left + cell * column, 0.06 + 0.6 * min(max(value / limit, 0.0), 1.0)
            parts.append(
                f'<rect x="{number(x + 1)}" y="{number(y + 1)}" width="{number(cell - 2)}" height="{number(line - 2)}" '
                f'rx="2" fill="var(--blue)" fill-opacity="{strength:.2f}"/>'
            )
            parts.append(text(x + cell / 2, y + 17, f"{value:.2f}", anchor="middle"))
    return picture(width, top + line * len(rows) + 14, parts, title=title, standalone=standalone)


def _diamond(x: float, y: float) -> str:
    return (
        f'<path d="M{number(x)} {number(y - 6)}l5 6l-5 6l-5 -6z" fill="var(--paper)" stroke="var(--ink)" '
        'stroke-width="1.5"/>'
    )
