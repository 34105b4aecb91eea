# SPDX-License-Identifier: Apache-2.0
"""Parse command lines with errors that name what exists and what was probably meant."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from chatvla_control.argument_types import unwritable

__all__ = ["ArgumentParser", "one_of", "unknown_name"]


class ArgumentParser(argparse.ArgumentParser):
    """argparse without abbreviations, whose complaint about an unknown option names the nearest one."""

    def __init__(self, *, prog: str, description: str, epilog: str = "") -> None:
        """`epilog` is shown line by line as it is."""
        formatter = argparse.RawDescriptionHelpFormatter if epilog else argparse.HelpFormatter
        super().__init__(
            prog=prog, description=description, epilog=epilog, formatter_class=formatter, allow_abbrev=False
        )

    def parse_strictly(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the parsed arguments; exits with code 2 and one sentence when they do not fit."""
        parsed, unknown = self.parse_known_args(argv)
        if unknown:
            options = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            self.error(unknown_name("argument", unknown[0].partition("=")[0], options))
        return parsed

    def require_writable(self, option: str, path: Path, *, folder: bool = False) -> None:
        """Exit as for a wrong argument when nothing can be written at `path`: now, not after the work."""
        if why := unwritable(path, folder=folder):
            self.error(
                f"argument {option}: {path} cannot be written: {why}; name another {'folder' if folder else 'file'}"
            )

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 after one sentence."""
        self.exit(2, f"{self.prog}: {message}\nSee {self.prog} --help\n")


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence that refuses `name`, lists what exists, and offers the nearest."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no {what} {name!r}; there are: {', '.join(names)}{hint}"


def one_of(what: str, known: Iterable[str]) -> Callable[[str], str]:
    """Return an argparse type that takes one of the `known` names."""
    names = tuple(known)

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(unknown_name(what, text, names))
        return text

    return parse
