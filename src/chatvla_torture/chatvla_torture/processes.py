# SPDX-License-Identifier: Apache-2.0
"""Start real processes, watch and maltreat them, and leave nothing behind. No ROS."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chatvla_cli.shared_memory import SHM, SharedMemoryFiles, mapped_files
from chatvla_control.subordinate import end_with_parent

__all__ = ["Kept", "ProcessSet", "Usage", "wait_until"]

MARK = "CHATVLA_TORTURE"
"""Environment variable by which descendants are found."""
_KIB = 1024


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a process holds."""

    memory_bytes: int
    """Resident, without shared memory: the segments of its peers have a fixed size, and appear as they are read."""
    threads: int
    handles: int


@dataclass(kw_only=True)
class Kept:
    """One process and its log."""

    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes]
    lives: int = 1

    @property
    def alive(self) -> bool:
        """Whether it runs (a stopped process counts as alive)."""
        return self.process.poll() is None

    def text(self) -> str:
        """Return all that it printed, over all its lives."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def usage(self) -> Usage:
        """Return what it holds now. Raises FileNotFoundError when it has ended."""
        folder = Path(f"/proc/{self.process.pid}")
        status = (folder / "status").read_text(encoding="utf-8")
        return Usage(
            memory_bytes=_KIB * sum(map(int, re.findall(r"Rss(?:Anon|File):\s*(\d+) kB", status))),
            threads=len(list((folder / "task").iterdir())),
            handles=len(list((folder / "fd").iterdir())),
        )


class ProcessSet:
    """Processes that die with this one, and whose shared memory is removed at the end."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """`environment` is added to this process's own; logs go into `folder`."""
        self._folder = folder
        self.mark = uuid.uuid4().hex
        self.environment = {**os.environ, **environment, MARK: self.mark, "PYTHONUNBUFFERED": "1"}
        self.members: dict[str, Kept] = {}
        self._files = SharedMemoryFiles()
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> ProcessSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> Kept:
        return self.members[name]

    def start(self, name: str, command: Sequence[str]) -> Kept:
        """Start a process, or start it anew after it ended."""
        log = self._folder / f"{name}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                list(command),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),
            )
        before = self.members.get(name)
        lives = before.lives + 1 if before else 1
        self.members[name] = Kept(name=name, command=command, log=log, process=process, lives=lives)
        return self.members[name]

    def restart(self, name: str) -> Kept:
        """Start a process that has ended with the same command."""
        return self.start(name, self.members[name].command)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal; after SIGKILL wait for the end."""
        self.observe()
        process = self.members[name].process
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        if number is signal.SIGKILL:
            process.wait()

    def wait_for(self, name: str, pattern: str, timeout_s: float, *, since: int = 0) -> bool:
        """Return whether the log matches `pattern` from character `since` on, at the latest after `timeout_s`."""
        member = self.members[name]
        return wait_until(lambda: re.search(pattern, member.text()[since:]) is not None, timeout_s)

    def observe(self) -> None:
        """Note which shared-memory files are in use, by this process too."""
        live = [member.process.pid for member in self.members.values() if member.alive]
        self._files.observe([os.getpid(), *live])

    def stop(self, name: str, timeout_s: float = 5.0) -> None:
        """End one process: SIGCONT, SIGINT, then SIGKILL."""
        member = self.members[name]
        self.observe()
        for number in (signal.SIGCONT, signal.SIGINT):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.process.pid, number)
        if not wait_until(lambda: not member.alive, timeout_s):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(member.process.pid, signal.SIGKILL)
            member.process.wait()

    def close(self) -> None:
        """End all processes, then remove the shared memory that they left."""
        self.observe()
        for member in self.members.values():
            for number in (signal.SIGCONT, signal.SIGINT):
                if member.alive:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(member.process.pid, number)
        for name in self.members:
            self.stop(name)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove the shared memory that no live process uses any more: what this one used, after its own nodes' end."""
        self._files.remove_leftovers()

    def descendants(self) -> list[int]:
        """Return the pids of live processes that carry this set's mark, our members among them."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def shared_memory(self) -> set[str]:
        """Return the names of existing shared-memory files that live members map."""
        pids = self.descendants()
        return {name for pid in pids for name in mapped_files(pid) if (SHM / name).exists()}


def wait_until(condition: Callable[[], object], timeout_s: float, period_s: float = 0.05) -> bool:
    """Return whether `condition` became true within `timeout_s`."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(period_s)
    return True
