# SPDX-License-Identifier: Apache-2.0
"""Remove the shared-memory files that killed nodes leave in /dev/shm, and never those that a live process uses.

Fast DDS deletes its files on a clean exit only. Which files are ours is read from the memory maps of our own processes
while they live; before a file is deleted, the maps and open files of all processes are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["SHM", "SharedMemoryFiles", "companions", "files_in_use", "mapped_files", "open_files"]

SHM = Path("/dev/shm")
PREFIXES = ("fastrtps_", "sem.fastrtps_", "fast_datasharing_")
DELETED = " (deleted)"
"""What the kernel puts after the name of a mapped file that has been unlinked."""


def mapped_files(pid: int | str) -> set[str]:
    """Return the names of Fast DDS's files that process `pid` maps; empty when it has ended or is another user's."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    head = f"{SHM}/"
    names = {line.rsplit(head, 1)[1] for line in maps.splitlines() if head in line}
    return {name for name in names if name.startswith(PREFIXES)}


def open_files(pid: int | str) -> set[str]:
    """Return the names of Fast DDS's files that process `pid` holds open: locks are not mapped."""
    names: set[str] = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                path = entry.readlink()
                if path.parent == SHM and path.name.startswith(PREFIXES):
                    names.add(path.name)
    return names


def files_in_use() -> set[str]:
    """Return the names of Fast DDS's files that any live process maps or holds open."""
    pids = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return set().union(*(mapped_files(pid) | open_files(pid) for pid in pids))


def companions(name: str) -> set[str]:
    """Return the names of a segment's own lock and mutex."""
    return {f"{name}_el", f"sem.{name}_mutex"}


class SharedMemoryFiles:
    """The files that a group of processes has used."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names`: files that are known to be of the group, without folders."""
        self._seen = {name for name in names if name.startswith(PREFIXES) and "/" not in name}

    @property
    def seen(self) -> frozenset[str]:
        """Names of all files that the group has used."""
        return frozenset(self._seen)

    def observe(self, pids: Iterable[int]) -> set[str]:
        """Take note of what the live processes `pids` map now; return the names that are new."""
        before = set(self._seen)
        for pid in pids:
            # Fast DDS may make a port's file anew while somebody still maps the old one.
            mapped = {name.removesuffix(DELETED) for name in mapped_files(pid)}
            self._seen |= mapped.union(*map(companions, mapped))
        return self._seen - before

    @property
    def left(self) -> set[str]:
        """Names of the files that the group has used and that still exist, whoever uses them now."""
        return {name for name in self._seen if (SHM / name).exists()}

    def remove_leftovers(self) -> list[str]:
        """Delete what was seen and no live process uses any more; return the names deleted."""
        left = self.left
        if not left:
            return []
        left -= files_in_use()
        for name in left:
            with contextlib.suppress(OSError):
                (SHM / name).unlink()
        return sorted(left)
