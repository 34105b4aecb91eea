# SPDX-License-Identifier: Apache-2.0
"""`./chatvla setup`: the environment is complete when this runs, so it only says where things are."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from chatvla_cli.errors import UsageError
from chatvla_cli.main import checkout
from chatvla_cli.verbs import find_verb

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Print where the environment is, or what the verb does; return 0. Raises UsageError for other words."""
    if {"-h", "--help"} & set(arguments):
        verb = find_verb(checkout(), "setup")
        print(f"Usage: ./chatvla setup\n\n{verb.summary}\n{verb.details}")
        return 0
    if arguments:
        raise UsageError(f"setup takes no arguments, not {arguments[0]!r}; './chatvla setup' makes the environment")
    print(f"The environment is complete: {sys.prefix}, log in {checkout() / '.chatvla' / 'setup.log'}")
    return 0
