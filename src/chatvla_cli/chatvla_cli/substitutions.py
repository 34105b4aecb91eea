# SPDX-License-Identifier: Apache-2.0
"""Expand `$(name argument ...)` in the values of a launch graph, as ROS 2's launch frontend does.

Supported: var, env, find-pkg-share, dirname, equals, not-equals, and, or, not, if. Arguments may be quoted and nested.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from chatvla_cli.errors import ChatvlaError

__all__ = ["Context", "GraphError", "expand", "is_true", "package_share"]

TRUE_WORDS = frozenset({"true", "1"})
FALSE_WORDS = frozenset({"false", "0"})


class GraphError(ChatvlaError):
    """A launch graph that cannot be read or resolved."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What substitutions may look up."""

    variables: Mapping[str, str]
    """Launch configurations: arguments and `let`."""
    environment: Mapping[str, str]
    folder: Path
    """The folder of the launch file."""


def expand(text: str, context: Context) -> str:
    """Return `text` with every substitution replaced by its value; raise GraphError for one that is not known."""
    parts, position = _fragments(text, 0, context, stop="")
    assert position == len(text)
    return parts


def is_true(text: str) -> bool:
    """Return what a condition says: true or 1, false or 0; raise GraphError for anything else."""
    word = text.strip().lower()
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return word in TRUE_WORDS
    raise GraphError(f"a condition says '{text}': expected true, 1, false or 0")


def package_share(package: str, environment: Mapping[str, str]) -> Path:
    """Return the share folder of an installed ament package; raise GraphError when no prefix holds it."""
    for prefix in environment.get("AMENT_PREFIX_PATH", "").split(":"):
        marker = Path(prefix) / "share" / "ament_index" / "resource_index" / "packages" / package
        if prefix and marker.exists():
            return Path(prefix) / "share" / package
    raise GraphError(f"package '{package}' is not installed: it is in no folder of AMENT_PREFIX_PATH")


def _fragments(text: str, position: int, context: Context, *, stop: str) -> tuple[str, int]:
    """Return the expanded text from `position` up to a character of `stop`, and where that is."""
    out: list[str] = []
    while position < len(text) and text[position] not in stop:
        if text.startswith("$(", position):
            value, position = _substitution(text, position + 2, context)
            out.append(value)
        elif text[position] == "\\" and position + 1 < len(text):
            out.append(text[position + 1])
            position += 2
        else:
            out.append(text[position])
            position += 1
    return "".join(out), position


def _substitution(text: str, position: int, context: Context) -> tuple[str, int]:
    """Return the value of the substitution whose name starts at `position`, and the place behind its `)`."""
    start = position
    while position < len(text) and text[position] not in " )":
        position += 1
    name, arguments = text[start:position], list[str]()
    while position < len(text) and text[position] == " ":
        position += 1
        quote = text[position : position + 1]
        if quote in {"'", '"'} and quote:
            value, position = _fragments(text, position + 1, context, stop=quote)
            position += 1
        else:
            value, position = _fragments(text, position, context, stop=" )")
        arguments.append(value)
    if text[position : position + 1] != ")":
        raise GraphError(f"'{text}' lacks a closing bracket after '$({name}'")
    return _value(name, arguments, context), position + 1


def _value(name: str, arguments: list[str], context: Context) -> str:
    if name not in FUNCTIONS:
        raise GraphError(f"substitution '$({name} ...)' is not supported; there are {', '.join(sorted(FUNCTIONS))}")
    count, function = FUNCTIONS[name]
    if len(arguments) not in count:
        raise GraphError(f"'$({name} ...)' takes {' or '.join(map(str, count))} arguments, not {len(arguments)}")
    return function(context, *arguments)


def _variable(context: Context, name: str, default: str | None = None) -> str:
    value = context.variables.get(name, default)
    if value is None:
        raise GraphError(f"'$(var {name})' is used but not declared; there are {', '.join(sorted(context.variables))}")
    return value


def _environment(context: Context, name: str, default: str | None = None) -> str:
    value = context.environment.get(name, default)
    if value is None:
        raise GraphError(f"environment variable {name} is not set")
    return value


def _equals(left: str, right: str) -> bool:
    both = {left.lower(), right.lower()}
    if both <= TRUE_WORDS | FALSE_WORDS:
        return (left.lower() in TRUE_WORDS) == (right.lower() in TRUE_WORDS)
    try:
        return math.isclose(float(left), float(right))
    except ValueError:
        return left == right


def _word(value: bool) -> str:
    return "true" if value else "false"


FUNCTIONS: Mapping[str, tuple[tuple[int, ...], Callable[..., str]]] = {
    "var": ((1, 2), _variable),
    "env": ((1, 2), _environment),
    "find-pkg-share": ((1,), lambda context, name: os.fspath(package_share(name, context.environment))),
    "dirname": ((0,), lambda context: os.fspath(context.folder)),
    "equals": ((2,), lambda _context, left, right: _word(_equals(left, right))),
    "not-equals": ((2,), lambda _context, left, right: _word(not _equals(left, right))),
    "and": ((2,), lambda _context, left, right: _word(is_true(left) and is_true(right))),
    "or": ((2,), lambda _context, left, right: _word(is_true(left) or is_true(right))),
    "not": ((1,), lambda _context, value: _word(not is_true(value))),
    "if": ((2, 3), lambda _context, test, then, other="": then if is_true(test) else other),
}
"""Name -> (allowed numbers of arguments, function of the context and the arguments)."""
