# SPDX-License-Identifier: Apache-2.0
"""Notice what a loader must not do: run code, start processes, open sockets, unpickle, write outside its folder.

Python reports these to audit hooks. A hook cannot be removed again, so this runs in a process of its own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Opened", "open_guarded"]

_FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "pickle.find_class",
)
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_events: list[str] | None = None
_allowed: str = ""
_installed = False


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What came of opening one hostile thing."""

    error: str
    """Type of the exception; empty when none came."""
    sentence: str
    """Its message, or what was read."""
    seconds: float
    grown_bytes: int
    """How much the process's largest memory grew."""
    events: tuple[str, ...]
    """Forbidden things that happened."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is None:
        return
    if event in _FORBIDDEN:
        _events.append(f"{event} {arguments!r:.200}")
    elif event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & _WRITING and not _inside(path):
            _events.append(f"wrote to {path!r:.200}")
    elif event in _CHANGES and arguments and isinstance(arguments[0], (str, bytes)) and not _inside(arguments[0]):
        _events.append(f"{event} {arguments!r:.200}")


def _inside(path: str | bytes) -> bool:
    return os.path.realpath(os.fsdecode(path)).startswith((_allowed, "/dev/null", "/proc/self"))


def open_guarded(opener: Callable[[Path], str], folder: Path) -> Opened:
    """Return what came of `opener(folder)`; it may write inside `folder` only."""
    global _events, _allowed, _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    import resource

    _allowed, _events = os.path.realpath(folder), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.monotonic()
    try:
        error, sentence = "", opener(folder)
    except Exception as caught:
        error, sentence = type(caught).__name__, str(caught)
    seconds = time.monotonic() - started_s
    events, _events = tuple(_events), None
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Opened(error=error, sentence=sentence, seconds=seconds, grown_bytes=grown * 1024, events=events)
