# SPDX-License-Identifier: Apache-2.0
"""`./chatvla setup`: the environment is complete when this runs, so it only says where things are."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from chatvla_cli.main import checkout

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Print where the environment is; return 0."""
    del arguments
    print(f"The environment is complete: {sys.prefix}, log in {checkout() / '.chatvla' / 'setup.log'}")
    return 0
