# SPDX-License-Identifier: Apache-2.0
"""What a killed process leaves running: nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatvla_control.subordinate import worker_pool

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc, which Linux has")

POOL = """
import os, time
from chatvla_control.subordinate import worker_pool
if __name__ == "__main__":
    with worker_pool(2) as pool:
        names = {pool.submit(os.getpid).result()}
        busy = pool.submit(time.sleep, 600)
        while len(names) < 2:
            names.add(pool.submit(os.getpid).result())
        print(*names, flush=True)
        busy.result()
"""
CHILD = """
import subprocess, time
from chatvla_control.subordinate import end_with_parent
print(subprocess.Popen(["sleep", "600"], preexec_fn=end_with_parent()).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("program", [POOL, CHILD], ids=["pool", "child"])
def test_nothing_outlives_a_killed_process(tmp_path: Path, program: str, number: signal.Signals) -> None:
    with started(tmp_path, program) as process:
        names = [int(word) for word in line_of(process).split()]
        assert names
        assert all(map(runs, names))
        process.send_signal(number)
        process.wait(10)
    assert ended(names, within_s=10.0) == set(names)


def test_a_pool_left_by_ctrl_c_ends_its_workers_at_once(tmp_path: Path) -> None:
    with started(tmp_path, POOL) as process:
        names = [int(word) for word in line_of(process).split()]
        process.send_signal(signal.SIGINT)
        process.wait(10)
    assert ended(names, within_s=10.0) == set(names)


def test_a_pool_returns_results_and_prepares_each_worker() -> None:
    with worker_pool(1, prepare=prepare) as pool:
        assert pool.submit(os.getenv, "PREPARED").result() == "yes"
        name = pool.submit(os.getpid).result()
    assert ended([name], within_s=10.0) == {name}


def prepare() -> None:
    os.environ["PREPARED"] = "yes"


@contextlib.contextmanager
def started(folder: Path, program: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a file of its own; it has ended afterwards, whatever happens."""
    path = folder / "program.py"
    path.write_text(program, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def runs(name: int) -> bool:
    try:
        return Path(f"/proc/{name}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ended(names: list[int], *, within_s: float) -> set[int]:
    until = time.monotonic() + within_s
    while any(map(runs, names)) and time.monotonic() < until:
        time.sleep(0.05)
    return {name for name in names if not runs(name)}
