# SPDX-License-Identifier: Apache-2.0
"""Reach any camera frame of a data set at once: encoded images of one view, end to end in one file.

Parquet is read a row group at a time, far too slow for shuffled training; this copy is made once beside the data.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from chatvla_training.data import layout
from chatvla_training.data.record import decode_image
from chatvla_training.progress import progress

__all__ = ["FrameStore"]


class FrameStore:
    """Frames of one view by number, in the order of the data set's rows."""

    def __init__(self, files: list[Path], view: str, cache: Path) -> None:
        """Open the copy in `cache`, which is made from the Parquet `files` when it is absent."""
        self._data_path = cache / f"{view}.bin"
        index_path = cache / f"{view}.ends.npy"
        if not index_path.exists():
            cache = _writable(cache)
            self._data_path, index_path = cache / f"{view}.bin", cache / f"{view}.ends.npy"
        if not index_path.exists():
            _build(files, view, self._data_path, index_path)
        self._ends: NDArray[np.int64] = np.load(index_path)
        self._map: np.memmap | None = None

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._ends)

    def __getstate__(self) -> dict[str, object]:
        """Leave the open map behind: a worker process opens its own."""
        return {**self.__dict__, "_map": None}

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return frame `index` as RGB (H, W, 3)."""
        if self._map is None:
            self._map = np.memmap(self._data_path, np.uint8, "r")
        start = int(self._ends[index - 1]) if index else 0
        return decode_image(self._map[start : int(self._ends[index])].tobytes())


def _writable(cache: Path) -> Path:
    """Return `cache`, or a folder of this user's temporary files when the data set is read-only."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return cache
    except OSError:
        pass
    key = cache.resolve().as_posix().strip("/").replace("/", "-")
    other = Path(tempfile.gettempdir()) / f"chatvla-frames-{os.getuid()}" / key
    other.mkdir(parents=True, exist_ok=True)
    return other


def _build(files: list[Path], view: str, data_path: Path, index_path: Path) -> None:
    """Copy the new frames of all row groups; the index is renamed last and so marks a whole copy."""
    key = layout.image_key(view)
    ends: list[int] = []
    position = 0
    aside = data_path.with_name(f".{data_path.name}.{os.getpid()}")
    with aside.open("wb") as stream:
        for path in progress(files, f"index frames of {view}", unit="file"):
            parquet = pq.ParquetFile(path)
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group, columns=[key, layout.IMAGE_AGE])
                fresh = np.flatnonzero(table[layout.IMAGE_AGE].to_numpy() == 0)
                images = table[key].combine_chunks().field("bytes")
                for row in fresh:
                    data = images[int(row)].as_py()
                    stream.write(data)
                    position += len(data)
                    ends.append(position)
    aside.replace(data_path)
    aside = index_path.with_name(f".{os.getpid()}.{index_path.name}")
    np.save(aside, np.array(ends, np.int64))
    aside.replace(index_path)
