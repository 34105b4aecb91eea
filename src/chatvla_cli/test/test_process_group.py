# SPDX-License-Identifier: Apache-2.0
"""Starting, watching and ending processes together: real processes, real signals, real DDS nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatvla_cli.process_group import Child, ProcessGroup, describe_exit
from chatvla_cli.shared_memory import SHM, SharedMemoryFiles, companions, mapped_files

NODE = """
import rclpy
rclpy.init()
node = rclpy.create_node("quiet")
publisher = node.create_publisher(__import__("std_msgs.msg", fromlist=["String"]).String, "words", 1)
print("up", flush=True)
try:
    rclpy.spin(node)
except BaseException:
    pass
"""
STUBBORN = (
    "import signal, time\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)"
)


def child(name: str, code: str, **options: object) -> Child:
    command = [sys.executable, "-u", "-c", textwrap.dedent(code)]
    return Child(name=name, command=command, environment=dict(os.environ), **options)  # type: ignore[arg-type]


def run(*children: Child) -> tuple[int, list[tuple[str, str]]]:
    lines: list[tuple[str, str]] = []
    code = ProcessGroup(children, show=lambda name, line: lines.append((name, line))).run()
    return code, lines


def test_the_end_of_the_last_act_ends_the_launch() -> None:
    bystander = child("bystander", "import time; time.sleep(60)")
    code, lines = run(bystander, child("act", "print('done')", ends_launch=True))
    assert code == 0
    assert ("act", "done") in lines
    assert not bystander.alive


def test_a_death_takes_the_rest_down_and_says_why() -> None:
    bystander = child("bystander", "import time; time.sleep(60)")
    code, lines = run(bystander, child("camera", "print('lens broken'); raise SystemExit(3)"))
    assert code == 3
    assert ("", "camera died (exit code 3): stopping everything. Its last lines:") in lines
    assert ("", "    lens broken") in lines
    assert not bystander.alive


def test_a_node_that_may_is_restarted(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    flaky = f"""
        from pathlib import Path
        mark = Path({str(mark)!r})
        if not mark.exists():
            mark.touch()
            raise SystemExit(1)
        import time
        print('second life')
        time.sleep(60)
    """
    code, lines = run(
        child("policy", flaky, respawn=True), child("act", "import time; time.sleep(1)", ends_launch=True)
    )
    assert code == 0
    assert ("policy", "second life") in lines
    assert ("", "policy died (exit code 1): restarting it (1)") in lines


def test_a_node_that_dies_again_and_again_is_given_up() -> None:
    code, lines = run(child("policy", "raise SystemExit(5)", respawn=True))
    assert code == 5
    assert any("again and again" in line for _, line in lines)


def test_a_node_that_refuses_its_settings_is_not_restarted() -> None:
    code, lines = run(child("policy", "print('no such checkpoint'); raise SystemExit(2)", respawn=True))
    assert code == 2
    assert not any("restarting" in line for _, line in lines)
    assert ("", "    no such checkpoint") in lines


def test_what_ignores_signals_is_killed_within_three_seconds() -> None:
    stubborn = child("stubborn", STUBBORN)
    started_s = time.monotonic()
    run(stubborn, child("act", "import time; time.sleep(0.3)", ends_launch=True))
    assert time.monotonic() - started_s < 0.3 + 3.0 + 0.5
    assert not stubborn.alive


def test_exit_codes_in_words() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-signal.SIGSEGV) == "signal SIGSEGV"


LAUNCHER = """
import sys
from chatvla_cli.process_group import Child, ProcessGroup
import os
node = Child(name="node", command=[sys.executable, "-u", "-c", {code!r}], environment=dict(os.environ))
def show(name, line):
    print(name, line, flush=True)
    if line == "up":
        print("pid", node.process.pid, flush=True)
sys.exit(ProcessGroup([node], show=show).run())
"""


@pytest.fixture
def launcher(request: pytest.FixtureRequest, ros_domain: int) -> tuple[subprocess.Popen[str], int]:
    """A launcher in a process of its own and the pid of its one child, which is up."""
    code = LAUNCHER.format(code=request.param)
    # In a domain of its own: the test run's nodes map the files of every node that they meet, and then keep them.
    alone = os.environ | {"ROS_DOMAIN_ID": str(215 + ros_domain % 17)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=alone)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("pid "):
            return process, int(line.split()[1])
    raise AssertionError("the child did not come up")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition, timeout_s: float) -> bool:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("launcher", [NODE], ids=["node"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stop_leaves_no_process_and_no_shared_memory(launcher, number: signal.Signals) -> None:
    process, pid = launcher
    mapped = mapped_files(pid)
    assert mapped
    started_s = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=5) == 130
    assert time.monotonic() - started_s < 3.0
    assert not is_alive(pid)
    assert not [name for name in mapped.union(*map(companions, mapped)) if (SHM / name).exists()]


@pytest.mark.parametrize("launcher", [NODE], ids=["node"], indirect=True)
def test_a_killed_launcher_takes_its_children_and_their_shared_memory_along(launcher) -> None:
    process, pid = launcher
    mapped = mapped_files(pid)
    time.sleep(1.0)  # the launcher looks every quarter of a second
    children = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.kill()
    process.wait()
    assert eventually(lambda: not is_alive(pid), 3.0)
    assert mapped
    assert eventually(lambda: not [n for n in mapped.union(*map(companions, mapped)) if (SHM / n).exists()], 5.0)
    assert eventually(lambda: not any(map(is_alive, children)), 5.0)


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: print("asked", flush=True))
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit()))
print("up", flush=True)
while True:
    time.sleep(60)
"""


@pytest.mark.parametrize("launcher", [SLOW], ids=["slow"], indirect=True)
@pytest.mark.parametrize(
    ("first", "second", "killed"),
    [
        (signal.SIGINT, signal.SIGINT, True),
        (signal.SIGTERM, signal.SIGINT, True),
        (signal.SIGHUP, signal.SIGHUP, False),
    ],
)
def test_one_further_ctrl_c_kills(launcher, first: signal.Signals, second: signal.Signals, killed: bool) -> None:
    process, pid = launcher
    process.send_signal(first)
    assert any(line == "node asked\n" for line in process.stdout)
    process.send_signal(second)
    rest = process.stdout.read()
    assert process.wait(timeout=5) == 130
    assert ("node still runs: SIGKILL" in rest) is killed
    assert not is_alive(pid)


HOLD = """
import mmap, sys, time
file = open(sys.argv[1], "r+b")
held = mmap.mmap(file.fileno(), 4096)
print("up", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def held_file() -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A file like Fast DDS's and a process that maps it."""
    path = SHM / f"fastrtps_test_{os.getpid()}"
    path.write_bytes(b"\0" * 4096)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path), "60"], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    yield path, holder
    holder.kill()
    holder.wait()
    path.unlink(missing_ok=True)


def test_shared_memory_of_a_live_process_is_kept(held_file: tuple[Path, subprocess.Popen[bytes]]) -> None:
    path, holder = held_file
    files = SharedMemoryFiles()
    files.observe([holder.pid])
    assert files.remove_leftovers() == []
    assert files.left == {path.name}
    holder.kill()
    holder.wait()
    assert files.remove_leftovers() == [path.name]
    assert not path.exists()


def test_a_file_that_is_in_use_at_the_end_is_removed_when_its_user_has_gone(
    held_file: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    path, holder = held_file
    user = child("user", f"import sys; sys.argv[1:] = [{str(path)!r}, '1']\n{HOLD}", ends_launch=True)
    assert run(user)[0] == 0
    assert path.exists()
    holder.kill()
    holder.wait()
    assert eventually(lambda: not path.exists(), 5.0)


def test_a_file_that_was_made_anew_is_removed(held_file: tuple[Path, subprocess.Popen[bytes]]) -> None:
    path, holder = held_file
    path.unlink()
    files = SharedMemoryFiles()
    files.observe([holder.pid])
    path.write_bytes(b"\0" * 4096)
    assert files.remove_leftovers() == [path.name]
    assert not path.exists()
