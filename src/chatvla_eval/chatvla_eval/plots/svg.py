# SPDX-License-Identifier: Apache-2.0
"""The frame of every plot: size, colours of both themes, axes with round ticks, text.

Colours are CSS variables. A plot inside a page takes the page's; a file of its own carries them, for light and dark.
Positions in px of the view box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

__all__ = ["SERIES", "THEME_CSS", "number", "picture", "polyline", "text", "ticks"]

SERIES = ("--blue", "--orange", "--green", "--purple", "--red", "--teal")
"""Colours of series, in order; told apart by people who see no red or no green too."""
_LIGHT = (
    "--ink:#1b1f27;--soft:#5a6270;--line:#d7dbe2;--paper:#ffffff;--card:#f6f7f9;"
    "--blue:#1f6fc2;--orange:#c8660a;--green:#2b7f4b;--purple:#7b4fc4;--red:#c23a3a;--teal:#0d7f86"
)
_DARK = (
    "--ink:#e8eaee;--soft:#a3abb8;--line:#3a404b;--paper:#14171c;--card:#1d2127;"
    "--blue:#6cb2ff;--orange:#ffa64d;--green:#6fcf8f;--purple:#b79bff;--red:#ff8a80;--teal:#58cdd4"
)
THEME_CSS = (
    f":root{{{_LIGHT};color-scheme:light dark}}"
    f"@media(prefers-color-scheme:dark){{:root:not([data-theme=light]){{{_DARK}}}}}"
    f":root[data-theme=dark]{{{_DARK};color-scheme:dark}}:root[data-theme=light]{{color-scheme:light}}"
)
_FONT = "system-ui,-apple-system,Segoe UI,Roboto,sans-serif"


def picture(width: float, height: float, parts: Sequence[str], *, title: str, standalone: bool = False) -> str:
    """Return an SVG of `parts`; a `standalone` one brings background and colours."""
    style = f"<style>{THEME_CSS.replace(':root', 'svg')}</style>" if standalone else ""
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>' if standalone else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}" role="img" '
        f'aria-label="{escape(title)}" font-family="{_FONT}" font-size="12" fill="var(--ink)">'
        f"{style}{paper}{''.join(parts)}</svg>"
    )


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    colour: str = "--ink",
    size: float = 12,
    bold: bool = False,
) -> str:
    """Return one line of text; `anchor` is start, middle or end."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" fill="var({colour})" '
        f'font-size="{number(size)}"{weight}>{escape(words)}</text>'
    )


def polyline(points: Sequence[tuple[float, float]], *, colour: str, width: float = 2, opacity: float = 1) -> str:
    """Return a line through `points`; the colour is a CSS variable's name."""
    path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="var({colour})" stroke-width="{number(width)}" '
        f'stroke-opacity="{number(opacity)}" stroke-linejoin="round" stroke-linecap="round"/>'
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers within low..high, ascending; one number for an empty range."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, count)
    scale = 10 ** math.floor(math.log10(raw))
    step = next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def number(value: float) -> str:
    """Return a number with at most one decimal place, as SVG needs no more."""
    return f"{value:.1f}".rstrip("0").rstrip(".") if value != round(value) else str(round(value))
