# SPDX-License-Identifier: Apache-2.0
"""Repair an environment whose folder was moved: scripts and CMake files name the old place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["remember_home", "repair", "was_moved"]


def _home(venv: Path) -> Path:
    return venv / "chatvla" / "home"


def was_moved(venv: Path) -> bool:
    """Return whether `venv` was made in another folder; an environment that does not know is left alone."""
    home = _home(venv)
    return home.is_file() and home.read_text() != str(venv)


def remember_home(venv: Path) -> None:
    """Write down where `venv` was made."""
    _home(venv).write_text(str(venv))


def repair(venv: Path) -> int:
    """Replace the old folder's name in every script and CMake file; return how many files changed."""
    old, new = _home(venv).read_bytes(), str(venv).encode()
    changed = 0
    for path in _texts(venv):
        before = path.read_bytes()
        if old in before and b"\0" not in before:
            path.write_bytes(before.replace(old, new))
            changed += 1
    for stamp in (venv / "chatvla").glob("*.stamp"):
        stamp.unlink()
    _home(venv).write_bytes(new)
    return changed


def _texts(venv: Path) -> Iterator[Path]:
    yield venv / "pyvenv.cfg"
    yield from (path for path in (venv / "bin").iterdir() if path.is_file() and not path.is_symlink())
    yield from (venv / "share").rglob("*.cmake")
