# SPDX-License-Identifier: Apache-2.0
"""Open arrays in files that several processes fill, one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["kept_arrays"]

Part = tuple[str, type[np.generic], tuple[int, ...]]


def kept_arrays(folder: Path, name: str, size: int, layout: Sequence[Part]) -> tuple[NDArray[Any], ...]:
    """Return one array in a file for each (suffix, type, shape of a row) of `layout`, `size` rows each.

    Missing files are made, with zeros.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = []
    for part, dtype, shape in layout:
        path = folder / f"{name}.{part}"
        path.open("ab").close()
        wanted = size * int(np.prod(shape)) * np.dtype(dtype).itemsize
        if path.stat().st_size < wanted:
            with path.open("r+b") as file:
                file.truncate(wanted)
        opened.append(np.memmap(path, dtype=dtype, mode="r+", shape=(size, *shape)))
    return tuple(opened)
