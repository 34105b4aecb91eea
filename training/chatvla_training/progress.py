# SPDX-License-Identifier: Apache-2.0
"""Show how far a long command has come."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

__all__ = ["progress"]

Item = TypeVar("Item")


def progress(items: Iterable[Item], label: str, *, unit: str = "it", total: int | None = None, start: int = 0) -> tqdm:
    """Return `items` under a progress bar on stderr; a plain line every 30 s where stderr is no terminal."""
    quiet = not sys.stderr.isatty()
    return tqdm(
        items,
        desc=label,
        unit=unit,
        total=total,
        initial=start,
        dynamic_ncols=not quiet,
        ncols=100 if quiet else None,
        mininterval=30.0 if quiet else 0.2,
        file=sys.stderr,
    )
