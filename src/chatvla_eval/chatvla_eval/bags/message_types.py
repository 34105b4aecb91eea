# SPDX-License-Identifier: Apache-2.0
"""Find definition, hash and Python class of a message type, from rosbags' own store or a package's .msg files."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

__all__ = ["MessageTypes", "UnknownTypeError", "message_class"]

_NAME = re.compile(r"[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*")


class UnknownTypeError(ValueError):
    """A message type's definition or class is not installed; the message names it and its package."""


class MessageTypes:
    """Definitions of message types. Types outside ROS 2 Jazzy's common ones are read from the installed .msg files."""

    def __init__(self) -> None:
        self.store: Typestore = get_typestore(Stores.ROS2_JAZZY)
        self._known_packages: set[str] = set()

    def require(self, msgtype: str) -> None:
        """Make `msgtype` ("package/msg/Name") and all it is made of known to `store`. Raises UnknownTypeError."""
        if msgtype in self.store.fielddefs:
            return
        self._read_package(msgtype.partition("/")[0])
        if msgtype not in self.store.fielddefs:
            raise UnknownTypeError(f"message type {msgtype} is not installed: its package has no msg file of that name")

    def _read_package(self, package: str) -> None:
        """Register every message of an installed package, and of the packages that they use."""
        if package in self._known_packages:
            return
        self._known_packages.add(package)
        try:
            folder = Path(get_package_share_directory(package)) / "msg"
        except PackageNotFoundError as error:
            raise UnknownTypeError(
                f"package {package} is not installed; build or source it to use its messages"
            ) from error
        found: dict[str, Any] = {}
        for path in sorted(folder.glob("*.msg")):
            found |= get_types_from_msg(path.read_text(encoding="utf-8"), f"{package}/msg/{path.stem}")
        for used in {name for definition in found.values() for name in _used_types(definition)}:
            if used not in found:
                self.require(used)
        self.store.register({name: value for name, value in found.items() if name not in self.store.fielddefs})


def message_class(msgtype: str) -> type[Any]:
    """Return the Python class of `msgtype` ("package/msg/Name"). Raises UnknownTypeError.

    Only ROS 2's common messages and those whose .msg file is installed are imported, only from their package's `msg`
    module: the name may come from a bag, and importing runs code.
    """
    if not (_NAME.fullmatch(msgtype) and (msgtype in _common().fielddefs or _definition(msgtype).is_file())):
        raise UnknownTypeError(
            f"message type {ascii(msgtype)[1:-1]:.200} is not installed: no package here has its .msg file"
        )
    package, _, name = msgtype.partition("/msg/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise UnknownTypeError(f"message type {msgtype} has no Python class here: {error}") from error


@cache
def _common() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)


def _definition(msgtype: str) -> Path:
    """Return where the .msg file of "package/msg/Name" is, if it is installed."""
    package, _, name = msgtype.partition("/msg/")
    try:
        return Path(get_package_share_directory(package)) / "msg" / f"{name}.msg"
    except (PackageNotFoundError, ValueError):
        return Path("/nonexistent")


def _used_types(definition: Any) -> set[str]:
    """Return the names of message types in a rosbags definition: nested tuples whose NAME nodes hold them."""
    found: set[str] = set()
    for part in definition:
        if isinstance(part, str) and part.count("/") == 2:
            found.add(part)
        elif isinstance(part, (tuple, list)):
            found |= _used_types(part)
    return found
