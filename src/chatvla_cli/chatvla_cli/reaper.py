# SPDX-License-Identifier: Apache-2.0
"""Remove the shared memory of a launch whose launcher was killed: a process that outlives the launcher for seconds.

The launcher cannot clean up after SIGKILL. So it tells a small process of its own which files its nodes use; when the
pipe between them ends without a word of farewell, that process waits until the files' users are gone and deletes them.
It needs no record on the disk, and never touches a file that it was not told of or that a live process uses.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

from chatvla_cli.shared_memory import SHM, SharedMemoryFiles

__all__ = ["Reaper", "main"]

_FAREWELL = "done"
_LONGEST_S = 10.0
_PERIOD_S = 0.2


class Reaper:
    """The launcher's side: tells the process what to remove."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chatvla_cli.reaper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            # A Ctrl-C is the launcher's alone.
            start_new_session=True,
        )

    def tell(self, names: Iterable[str]) -> None:
        """Name files that the nodes use now."""
        self._write("".join(f"{name}\n" for name in names))

    def close(self) -> None:
        """Say that the launcher has removed them itself; wait for the process's end."""
        self._write(f"{_FAREWELL}\n")
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.communicate(timeout=1.0)

    def leave(self) -> None:
        """Let the process remove what is still in use: a killed process keeps its maps for a moment."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        # Without its reaper a launch still runs.
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(text)
            self._process.stdin.flush()


def main() -> int:
    """Read names from stdin until it ends; then remove what is left of them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    names = sys.stdin.read().split("\n")
    if _FAREWELL in names:
        return 0
    files = SharedMemoryFiles(name for name in names if name)
    end_s = time.monotonic() + _LONGEST_S
    while time.monotonic() < end_s and any((SHM / name).exists() for name in files.seen):
        files.remove_leftovers()
        time.sleep(_PERIOD_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
