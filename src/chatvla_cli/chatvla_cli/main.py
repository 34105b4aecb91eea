# SPDX-License-Identifier: Apache-2.0
"""Run one verb inside the environment that bootstrap.py made."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from chatvla_cli.errors import ChatvlaError
from chatvla_cli.verbs import find_verb, overview

__all__ = ["checkout", "main", "run_verb"]


def checkout() -> Path:
    """Return the folder of the checkout: CHATVLA_ROOT, or the one that this file lies in."""
    return Path(os.environ.get("CHATVLA_ROOT") or Path(__file__).resolve().parents[3])


def run_verb(name: str, arguments: Sequence[str]) -> int:
    """Call the function of the verb `name`; return its exit code. Errors the user can act on become one message."""
    try:
        verb = find_verb(checkout(), name)
        module, function = verb.target.split(":")
        return int(getattr(importlib.import_module(module), function)(list(arguments)) or 0)
    except ChatvlaError as error:
        print(f"chatvla {name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `chatvla VERB ...`; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in {"-h", "--help"}:
        print(overview(checkout()))
        return 0
    return run_verb(words[0], words[1:])


if __name__ == "__main__":
    sys.exit(main())
