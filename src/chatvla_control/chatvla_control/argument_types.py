# SPDX-License-Identifier: Apache-2.0
"""Parse values of command lines (argparse types) with a sentence for what does not fit."""

from __future__ import annotations

import argparse
import math

__all__ = ["count", "natural", "positive", "view_heights"]

_WIDEST_DEG = 170.0


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """Return a whole number of at least 0."""
    return _whole(text, 0)


def positive(text: str) -> float:
    """Return a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def view_heights(text: str) -> dict[str, float]:
    """Return the heights [degrees] by view of `top=27,right=38`; 0 stands for as high as the camera's."""
    heights: dict[str, float] = {}
    for part in text.split(","):
        view, found, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (found and view.strip() and 0.0 <= value <= _WIDEST_DEG) or view.strip() in heights:
            raise argparse.ArgumentTypeError(
                f"{part!r} is no VIEW=DEGREES of a view of its own, 0 to {_WIDEST_DEG:g}, as in top=27,right=38"
            )
        heights[view.strip()] = value
    return heights


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
    return value
