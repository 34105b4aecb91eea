# SPDX-License-Identifier: Apache-2.0
"""Start the processes of a launch, show their output, and end them together: all, within three seconds.

Each process has a session of its own, so that a Ctrl-C reaches only the launcher, which then stops them in order:
SIGINT, then SIGTERM, then SIGKILL. When the launcher itself is killed, the kernel kills its children, and a reaper
removes the shared memory that they leave.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chatvla_cli.errors import ChatvlaError
from chatvla_cli.reaper import Reaper
from chatvla_cli.shared_memory import SharedMemoryFiles

__all__ = ["Child", "ProcessGroup", "describe_exit"]

TERMINATE_AFTER_S = 1.5
KILL_AFTER_S = 2.3
QUICK_DEATH_S = 10.0
"""torch alone takes seconds to import: what ends before this has hardly begun."""
QUICK_DEATHS_ALLOWED = 3
REFUSED = 2
"""Exit code of a node that refuses its settings: starting it again changes nothing."""
OBSERVE_PERIOD_S = 0.25
KEPT_LINES = 12
PR_SET_PDEATHSIG = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(kw_only=True)
class Child:
    """One process of the group, and what to do when it ends."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    respawn: bool = False
    respawn_delay_s: float = 0.0
    respawn_max_retries: int = -1
    ends_launch: bool = False
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    restart_at_s: float | None = None
    restarts: int = 0
    quick_deaths: int = 0
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    partial: bytes = b""
    traceback: list[str] | None = None
    """Lines of a traceback held back while stopping, until it shows what it is about."""

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None


def describe_exit(code: int) -> str:
    """Return what an exit code means: 'exit code 3' or 'signal SIGSEGV'."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


class ProcessGroup:
    """Runs children until one ends the launch, one dies that may not, or the user stops them."""

    def __init__(self, children: Iterable[Child], *, show: Callable[[str, str], None]) -> None:
        """Take the children to run; `show(name, line)` prints a line, name '' for the launcher's own."""
        self._children = list(children)
        self._show = show
        self._files = SharedMemoryFiles()
        self._selector = selectors.DefaultSelector()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._stop_asked = False
        self._kill_asked = False
        self._stopping = False
        self._observe_at_s = 0.0
        self._reaper: Reaper | None = None

    def run(self) -> int:
        """Run to the end; return the exit code of the launch. Only callable from the main thread."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._selector.register(reader, selectors.EVENT_READ, None)
        before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        old_wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            for child in self._children:
                self._start(child)
            return self._watch()
        finally:
            self._stop_all()
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            os.close(reader)
            os.close(writer)
            self._files.remove_leftovers()
            if self._reaper is not None and self._files.left:
                self._reaper.leave()
            elif self._reaper is not None:
                self._reaper.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        # A terminal that closes may send SIGHUP twice: only a person at the keyboard is in a hurry.
        self._kill_asked |= self._stop_asked and number == signal.SIGINT
        self._stop_asked = True

    def _start(self, child: Child) -> None:
        parent = os.getpid()

        def die_with_parent() -> None:
            self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        try:
            child.process = subprocess.Popen(
                child.command,
                env=dict(child.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            raise ChatvlaError(f"'{child.name}' cannot be started by {child.command[0]}: {error.strerror}") from error
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)
        child.started_s = time.monotonic()
        child.restart_at_s = None

    def _watch(self) -> int:
        while True:
            self._pump(OBSERVE_PERIOD_S)
            if self._stop_asked:
                return 130
            now_s = time.monotonic()
            for child in self._children:
                if child.restart_at_s is not None:
                    if now_s >= child.restart_at_s:
                        self._start(child)
                elif not child.alive:
                    code = self._on_end(child, now_s)
                    if code is not None:
                        return code

    def _on_end(self, child: Child, now_s: float) -> int | None:
        """Decide what the end of `child` means: None to go on, or the exit code of the launch."""
        assert child.process is not None
        code = child.process.returncode
        self._drain(child)
        if child.ends_launch and code == 0:
            return 0
        child.quick_deaths = child.quick_deaths + 1 if now_s - child.started_s < QUICK_DEATH_S else 0
        exhausted = 0 <= child.respawn_max_retries <= child.restarts or child.quick_deaths > QUICK_DEATHS_ALLOWED
        if child.respawn and not exhausted and code != REFUSED:
            child.restarts += 1
            child.restart_at_s = now_s + child.respawn_delay_s
            self._show("", f"{child.name} died ({describe_exit(code)}): restarting it ({child.restarts})")
            return None
        again = " again and again" if child.respawn and code != REFUSED else ""
        self._show("", f"{child.name} died{again} ({describe_exit(code)}): stopping everything. Its last lines:")
        for line in child.last_lines:
            self._show("", f"    {line}")
        return code if 0 < code < 126 else 1

    def _stop_all(self) -> None:
        """Stop every child: ask, insist, then kill. After a stop signal a further Ctrl-C kills at once."""
        self._observe(force=True)
        self._stopping = True
        started_s = time.monotonic()
        plan = [(0.0, signal.SIGINT), (TERMINATE_AFTER_S, signal.SIGTERM), (KILL_AFTER_S, signal.SIGKILL)]
        while any(child.alive for child in self._children):
            elapsed_s = time.monotonic() - started_s
            if self._kill_asked:
                elapsed_s = KILL_AFTER_S
            while plan and elapsed_s >= plan[0][0]:
                self._signal_all(plan.pop(0)[1])
            self._pump(0.02)
            # While nodes go down, those that are left make ports anew.
            self._observe(force=True)
        for child in self._children:
            # A grandchild in the child's session must not outlive the launch.
            if child.process is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.process.pid, signal.SIGKILL)
                self._drain(child)

    def _signal_all(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.process is not None and child.alive:
                if number != signal.SIGINT:
                    self._show("", f"{child.name} still runs: {number.name}")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, number)

    def _observe(self, *, force: bool = False) -> None:
        now_s = time.monotonic()
        if force or now_s >= self._observe_at_s:
            self._observe_at_s = now_s + OBSERVE_PERIOD_S
            pids = [child.process.pid for child in self._children if child.process and child.alive]
            new = self._files.observe(pids)
            if new:
                self._reaper = self._reaper or Reaper()
                self._reaper.tell(new)

    def _pump(self, timeout_s: float) -> None:
        """Show what the children have printed; wait at most `timeout_s`."""
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                os.read(key.fd, 1024)
            else:
                self._read(key.data)
        self._observe()

    def _drain(self, child: Child) -> None:
        while self._read(child):
            pass
        if child.partial:
            self._line(child, child.partial)
            child.partial = b""
        for line in child.traceback or ():
            self._show(child.name, line)
        child.traceback = None

    def _read(self, child: Child) -> bool:
        """Read once from a child; return whether there may be more."""
        stream = child.process.stdout if child.process else None
        if stream is None or stream.closed:
            return False
        try:
            data = os.read(stream.fileno(), 65536)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(stream)
            stream.close()
            return False
        *lines, child.partial = (child.partial + data).split(b"\n")
        for line in lines:
            self._line(child, line)
        return True

    def _line(self, child: Child, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace").rstrip()
        child.last_lines.append(text)
        if self._stopping and (child.traceback is not None or text.startswith("Traceback ")):
            # A node stopped while it still imports says KeyboardInterrupt at length: that is what was asked for.
            child.traceback = [*(child.traceback or []), text]
            if text == "KeyboardInterrupt":
                child.traceback = None
            return
        self._show(child.name, text)
