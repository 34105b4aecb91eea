# SPDX-License-Identifier: Apache-2.0
"""Write a folder aside and put it in place in one step, so that nobody ever sees half of it.

Files and folders are flushed to the disk before the swap. An existing folder is exchanged with the new one by
Linux's renameat2 where the file system offers it; elsewhere it is moved aside first, a moment without a folder.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ReplaceError", "replaced_folder"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class ReplaceError(ValueError):
    """The folder must not be replaced; the message says why."""


@contextmanager
def replaced_folder(folder: Path, *, marker: str) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `folder` when the block ends without an error.

    An existing `folder` is replaced only if it is empty or holds the file `marker`, which tells that it is of the
    same kind. Raises ReplaceError otherwise.
    """
    folder = folder.absolute()
    _check_replaceable(folder, marker)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.parent / f".{folder.name}.writing-{secrets.token_hex(4)}"
    aside.mkdir()
    try:
        yield aside
        _flush(aside)
        if folder.exists():
            _exchange(aside, folder)
        else:
            os.rename(aside, folder)
        _flush_folder(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_replaceable(folder: Path, marker: str) -> None:
    """Raise ReplaceError when something stands at `folder` that is not ours to replace."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ReplaceError(f"{folder} is not a folder; choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise ReplaceError(f"{folder} holds other files and no {marker}; choose an empty or new folder")


def _flush(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            _flush_folder(path)
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders; afterwards `new` is the old content."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        status = renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE)
        if status == 0:
            return
    spare = old.parent / f".{old.name}.old-{secrets.token_hex(4)}"
    os.rename(old, spare)
    try:
        os.rename(new, old)
    except OSError:
        os.rename(spare, old)
        raise
    os.rename(spare, new)
