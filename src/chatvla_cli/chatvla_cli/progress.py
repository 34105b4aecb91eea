# SPDX-License-Identifier: Apache-2.0
"""Run set-up commands: full output into the log, short progress on the terminal, the last lines on failure."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

__all__ = ["Progress", "run_logged"]

QUIET_PERIOD_S = 10.0
"""Between two progress lines where the output is not a terminal."""


class Progress:
    """One line of progress: rewritten in place on a terminal, printed now and then elsewhere."""

    def __init__(self, title: str, *, stream: TextIO = sys.stderr) -> None:
        self._title = title
        self._stream = stream
        self._live = stream.isatty()
        self._started_s = time.monotonic()
        self._printed_s = self._started_s
        self._print(f"{title} ...", end="" if self._live else "\n")

    def update(self, detail: str) -> None:
        """Show `detail` behind the title."""
        now_s = time.monotonic()
        if self._live:
            self._print(f"\r\033[K{self._title}: {detail[:80]}", end="")
        elif now_s - self._printed_s > QUIET_PERIOD_S:
            self._printed_s = now_s
            self._print(f"{self._title}: {detail} ({now_s - self._started_s:.0f} s)")

    def done(self, detail: str = "done") -> None:
        """End the line with `detail` and the seconds spent."""
        start = "\r\033[K" if self._live else ""
        self._print(f"{start}{self._title}: {detail} ({time.monotonic() - self._started_s:.0f} s)")

    def _print(self, text: str, *, end: str = "\n") -> None:
        print(text, end=end, file=self._stream, flush=True)


def run_logged(
    command: Sequence[str | os.PathLike[str]],
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str],
    on_line: Callable[[str], None] = lambda _line: None,
) -> tuple[int, str]:
    """Run `command`, append its output to `log`; return its exit code and its whole output."""
    lines: list[str] = []
    with log.open("a", encoding="utf-8", errors="replace") as sink:
        sink.write(f"\n$ {' '.join(map(str, command))}\n")
        sink.flush()
        with subprocess.Popen(
            [os.fspath(word) for word in command],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                sink.write(line)
                lines.append(line)
                on_line(line.rstrip())
    return process.returncode, "".join(lines)
