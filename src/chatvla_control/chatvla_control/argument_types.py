# SPDX-License-Identifier: Apache-2.0
"""Parse values of command lines (argparse types) with a sentence for what does not fit."""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

__all__ = ["count", "filled", "filled_path", "natural", "positive", "share", "unwritable", "view_heights"]

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


def share(text: str) -> float:
    """Return a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value


def filled(text: str) -> str:
    """Return `text`, refused when it is empty: such a value comes of a shell variable that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the value is empty; give one, or leave the option out")
    return text


def filled_path(text: str) -> Path:
    """Return a path; an empty one, which would be the present folder, is refused."""
    return Path(filled(text))


def unwritable(path: Path, *, folder: bool = False) -> str:
    """Return why no file can be written at `path`, or with `folder` into it; "" when it can.

    Makes the folder of a file where it is missing; a `folder` that was missing is missing afterwards, too.
    """
    missing = [place for place in (path, *path.parents) if not place.exists()] if folder else []
    try:
        if folder:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            existed = path.exists()
            path.open("a").close()
            if not existed:
                path.unlink()
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for place in missing:
            try:
                place.rmdir()
            except OSError:
                break
    return ""


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
