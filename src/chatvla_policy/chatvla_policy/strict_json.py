# SPDX-License-Identifier: Apache-2.0
"""Write frozen dataclasses as JSON and read them back, refusing whatever does not fit exactly.

A field that files of earlier versions lack is made with `added`; it then has its default.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["StrictJsonError", "added", "dump_json", "from_plain", "read_json", "to_plain"]

T = TypeVar("T")
_hints: Callable[[type], dict[str, Any]] = cache(get_type_hints)
LARGEST_FILE = 16 * 1024 * 1024
_ADDED = "added"


class StrictJsonError(ValueError):
    """The data does not fit; the message names the place, what came and what is expected."""


def added(default: Any) -> Any:
    """Return a dataclass field with `default`, which files written before it existed may lack."""
    return field(default=default, metadata={_ADDED: True})


def to_plain(value: Any) -> Any:
    """Return `value` as dicts, lists, strings, numbers, booleans and None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    return value.value if isinstance(value, Enum) else value


def dump_json(value: Any) -> str:
    """Return `value` as JSON text with a final newline. Raises ValueError for NaN and infinities."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Return the parsed file. Raises StrictJsonError when it is missing, too large or no JSON."""
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise StrictJsonError(f"{path.name} has {size} bytes, at most {LARGEST_FILE} are read")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise StrictJsonError(f"{path.name} cannot be read: {error.strerror}") from error
    except StrictJsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise StrictJsonError(f"{path.name} is no JSON: {error}") from error


def from_plain(kind: type[T], data: Any, *, where: str = "") -> T:
    """Return the dataclass `kind` read from plain data.

    Raises StrictJsonError naming the first field that is missing, unknown or of another type, and passes on what
    the dataclass itself refuses as StrictJsonError.
    """
    place = where or kind.__name__
    if not isinstance(data, dict):
        raise StrictJsonError(f"{place} is {type(data).__name__}, expected an object")
    hints = _hints(kind)
    names = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    for key in data:
        if key not in names:
            raise StrictJsonError(f"{place} has an unknown field {key!r}; it has: {', '.join(names)}")
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name not in data and not item.metadata.get(_ADDED):
            raise StrictJsonError(f"{place} lacks the field {item.name!r}")
    values = {name: _convert(hints[name], data[name], f"{place}.{name}") for name in names if name in data}
    try:
        return kind(**values)
    except ValueError as error:
        raise StrictJsonError(f"{place}: {error}") from error


def _convert(hint: Any, data: Any, where: str) -> Any:
    """Return `data` as `hint` says. Raises StrictJsonError where it does not fit."""
    origin = get_origin(hint)
    if origin is Literal:
        if data not in get_args(hint):
            raise StrictJsonError(f"{where} is {data!r}; there are: {', '.join(map(str, get_args(hint)))}")
        return data
    if origin in (Union, UnionType):
        if data is None and type(None) in get_args(hint):
            return None
        return _convert(next(item for item in get_args(hint) if item is not type(None)), data, where)
    if origin is tuple:
        return _convert_tuple(get_args(hint), data, where)
    if is_dataclass(hint):
        return from_plain(hint, data, where=where)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(data)
        except ValueError:
            raise StrictJsonError(
                f"{where} is {data!r}; there are: {', '.join(str(item.value) for item in hint)}"
            ) from None
    return _convert_scalar(hint, data, where)


def _convert_tuple(items: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    """Return a list as a tuple of the given item types."""
    if not isinstance(data, list):
        raise StrictJsonError(f"{where} is {type(data).__name__}, expected a list")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_convert(items[0], item, f"{where}[{index}]") for index, item in enumerate(data))
    if len(data) != len(items):
        raise StrictJsonError(f"{where} has {len(data)} items, expected {len(items)}")
    pairs = zip(items, data, strict=True)
    return tuple(_convert(kind, item, f"{where}[{index}]") for index, (kind, item) in enumerate(pairs))


def _convert_scalar(hint: Any, data: Any, where: str) -> Any:
    """Return a number, string or boolean of exactly the type asked; integers serve as floats."""
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        try:
            data = float(data)
        except OverflowError:
            raise StrictJsonError(f"{where} is a number of {len(str(data))} digits, which no float holds") from None
    if type(data) is not hint:
        raise StrictJsonError(f"{where} is {data!r}, expected {getattr(hint, '__name__', hint)}")
    if hint is float and not math.isfinite(data):
        raise StrictJsonError(f"{where} is {data}, must be finite")
    return data


def _no_constant(word: str) -> float:
    raise StrictJsonError(f"the file holds {word}, which JSON does not have")
