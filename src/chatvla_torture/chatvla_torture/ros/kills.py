# SPDX-License-Identifier: Apache-2.0
"""Kill, stop and restart nodes at random while trials run; see that the arm holds and that the next trial runs.

Most cases act on nodes that this process starts one by one: each can die and return alone. Every tenth case acts
on `./chatvla launch`, which must report what died and leave nothing behind.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

from chatvla_cli.shared_memory import SHM, mapped_files, open_files
from chatvla_torture.campaign import PartRun
from chatvla_torture.processes import ProcessSet, wait_until
from chatvla_torture.promise import Case, Promise
from chatvla_torture.ros.rig import Rig

__all__ = ["run"]

_AT_FULL = 100
_LAUNCH_EVERY = 10
_NODES = ("expert", "sim", "driver", "rollout", "recorder")
_ACTIONS = ("kill", "stop", "restart")
_MOTION_S = 120.0


def run(part: PartRun) -> None:
    """Run the part."""
    count = part.scaled(_AT_FULL, least=2)
    holds = part.promise(
        "holds",
        "within two control periods of the last valid chunk's end every joint only nears its rest, inside the limits",
        planned=count,
        unit="ends of chunks",
    )
    recovers = part.promise(
        "recovers",
        "after a node was killed, stopped or restarted, trials end with a named error and the next one moves the arm",
        planned=count - count // _LAUNCH_EVERY,
        unit="faults",
    )
    reports = part.promise(
        "launch", "launch names what died, restarts only what may be, and ends", planned=max(1, count // _LAUNCH_EVERY)
    )
    clean = part.promise("clean", "no process and no shared-memory file is left", planned=2, unit="shutdowns")
    cases = list(range(count)) if part.only_case is None else [part.only_case]
    bench = [number for number in cases if number % _LAUNCH_EVERY != _LAUNCH_EVERY - 1]
    if bench:
        with Rig(part.scratch / "rig") as rig:
            _start_all(part, rig)
            for number in bench:
                if not part.in_time():
                    break
                part.say(f"fault {number + 1} of {count}")
                _fault(part, rig, part.case(number), holds, recovers)
            seen = rig.processes.shared_memory()
            rig.processes.close()
            _require_clean(rig.processes, seen, clean)
    for number in sorted(set(cases) - set(bench)):
        if part.in_time():
            part.say(f"launch {number + 1} of {count}")
            _launch(part, part.case(number), reports, clean)


def _start_all(part: PartRun, rig: Rig) -> None:
    rig.start("sim", parameters={"camera_rate_hz": 15.0})
    rig.start("driver")
    rig.start("expert")
    rig.start("recorder", words=["--out", str(part.scratch / "bag-0")])
    rig.wait_ready("sim", "driver", "expert", "recorder")
    _start_rollout(part, rig, 0)


def _start_rollout(part: PartRun, rig: Rig, number: int) -> None:
    rig.start(
        "rollout",
        parameters={
            "trials": 9999,
            "split": "in_domain",
            "policy": "expert",
            "seed": number,
            "timeout": 20.0,
            "out": str(part.scratch / f"out-{number}"),
        },
    )


def _fault(part: PartRun, rig: Rig, case: Case, holds: Promise, recovers: Promise) -> None:
    random = case.random()
    name, action = str(random.choice(_NODES)), str(random.choice(_ACTIONS))
    _wait_for_motion(part, rig, case, recovers, f"before {action} of {name}")
    time.sleep(float(random.uniform(0.0, 2.0)))
    rollout = rig.processes["rollout"]
    said = len(rollout.text())
    if action == "stop":
        rig.processes.signal(name, signal.SIGSTOP)
        time.sleep(float(random.choice([0.05, 0.3, 1.0, 3.5])))
        rig.processes.signal(name, signal.SIGCONT)
    else:
        if action == "kill":
            rig.processes.signal(name, signal.SIGKILL)
        else:
            rig.processes.stop(name)
        time.sleep(float(random.uniform(0.0, 1.0)))
        _restart(part, rig, name, case.number)
    _wait_for_motion(part, rig, case, recovers, f"after {action} of {name}", said=said)
    audit = rig.audit()
    holds.require(not audit.broken, f"{action} of {name}: {audit.broken[:1]}", case)
    holds.held = audit.holds
    holds.notes["ticks"] = audit.ticks
    holds.notes["slowest rest s"] = audit.slowest_rest_s
    recovers.hold()
    recovers.notes[action] = int(recovers.notes.get(action, 0)) + 1


def _restart(part: PartRun, rig: Rig, name: str, number: int) -> None:
    if name == "rollout":
        _start_rollout(part, rig, number + 1)
    elif name == "recorder":
        rig.start("recorder", words=["--out", str(part.scratch / f"bag-{number + 1}")])
    else:
        rig.processes.restart(name)


def _wait_for_motion(
    part: PartRun, rig: Rig, case: Case, recovers: Promise, when: str, *, said: int | None = None
) -> None:
    """Wait until the driver plays chunks that are newer than now; start the scorer anew where it ended in a sentence.

    `said`: where the scorer's log stood at the fault; a line in it must then name what went wrong, or score a trial.
    """
    chunks = rig.audit().chunks
    end_s = time.monotonic() + _MOTION_S
    while rig.audit().chunks < chunks + 3:
        rollout = rig.processes["rollout"]
        if not rollout.alive:
            words = rollout.text().strip().splitlines()[-1:]
            named = rollout.process.returncode in (-signal.SIGKILL, 130) or re.search(
                r"rollout: \S|results", str(words)
            )
            recovers.require(named, f"{when}: the scorer ended without a sentence: {words}", case)
            recovers.notes["scorer started anew"] = int(recovers.notes.get("scorer started anew", 0)) + 1
            _start_rollout(part, rig, case.number + 1000)
        for name in ("sim", "driver", "expert"):
            member = rig.processes[name]
            recovers.require(member.alive, f"{when}: {name} died too: {member.text()[-500:]}", case)
        if time.monotonic() > end_s:
            recovers.require(
                False,
                f"{when}: no motion within {_MOTION_S:g} s; driver {rig.driver_reports[-1:]}; "
                f"scorer {rig.processes['rollout'].text()[said or 0 :][-500:]}",
                case,
            )
        time.sleep(0.1)


def _launch(part: PartRun, case: Case, reports: Promise, clean: Promise) -> None:
    random = case.random()
    victim = ("driver", "sim", "policy")[int(random.integers(3))]
    command = [sys.executable, "-m", "chatvla_cli.main", "launch", "math_match", "policy:=expert", "trials:=0"]
    command += [f"out:={part.scratch / f'launch-{case.number}'}"]
    domain = str(100 - int(random.integers(5)))
    with ProcessSet(part.scratch / f"launch-log-{case.number}", {"ROS_DOMAIN_ID": domain}) as processes:
        launch = processes.start("launch", command)
        reports.require(processes.wait_for("launch", "is ready", 120.0), f"launch: {launch.text()[-800:]}", case)
        pids = _children(launch.process.pid)
        seen = {name for pid in pids for name in mapped_files(pid)}
        os.kill(_node(pids, victim), signal.SIGKILL)
        if victim == "policy":
            said = processes.wait_for("launch", r"policy died \(signal SIGKILL\): restarting it", 20.0)
            reports.require(said, f"launch said nothing of its dead policy: {launch.text()[-500:]}", case)
            os.kill(launch.process.pid, signal.SIGINT)
        else:
            said = processes.wait_for("launch", rf"{victim} died \(signal SIGKILL\): stopping everything", 20.0)
            reports.require(said, f"launch said nothing of its dead {victim}: {launch.text()[-500:]}", case)
        reports.require(wait_until(lambda: not launch.alive, 20.0), f"launch goes on after {victim} died", case)
        reports.hold()
        _require_clean(processes, seen, clean, case)


def _node(pids: list[int], name: str) -> int:
    for pid in pids:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        if f"__node:={name}" in words:
            return pid
    raise RuntimeError(f"launch has no node {name}")


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _in_use(name: str) -> bool:
    pids = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return any(name in mapped_files(pid) | open_files(pid) for pid in pids)


def _require_clean(processes: ProcessSet, seen: set[str], clean: Promise, case: Case | None = None) -> None:
    wait_until(lambda: not processes.descendants(), 5.0)
    left = processes.descendants()
    clean.require(not left, f"processes are left: {left}", case)
    # What this process or another live one uses is not left over.
    files = [name for name in seen if (SHM / name).exists() and not _in_use(name)]
    clean.require(not files, f"shared memory is left: {files}", case)
    clean.hold()
