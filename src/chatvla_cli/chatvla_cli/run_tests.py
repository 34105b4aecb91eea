# SPDX-License-Identifier: Apache-2.0
"""`./chatvla test`: pytest over every package, with pytest's own last line last."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from chatvla_cli.main import checkout

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Replace this process with pytest; its exit code is ours."""
    os.chdir(checkout())
    command = [sys.executable, "-m", "pytest", *arguments]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.stdout.flush()
    os.execv(command[0], command)
