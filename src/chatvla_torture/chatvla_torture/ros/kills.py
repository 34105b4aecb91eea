# SPDX-License-Identifier: Apache-2.0
"""Kill, stop and restart nodes at random while trials run; see that the arm holds and that the next trial runs.

Most cases act on nodes that this process starts one by one: each can die and return alone. The first bench is moved by
the scripted expert, the second by the policy node with an untrained checkpoint, which needs the camera; in simulation
camera and simulator are one process. Every tenth case acts on `./chatvla launch`, which must report what died and leave
nothing behind, killed itself too.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

from chatvla_cli.shared_memory import SHM, files_in_use, mapped_files
from chatvla_torture.campaign import PartRun
from chatvla_torture.processes import ProcessSet, wait_until
from chatvla_torture.promise import Case, Promise
from chatvla_torture.ros.rig import Rig

__all__ = ["run"]

_AT_TWENTY = 20
_FULL = 100
_LAUNCH_EVERY = 10
_NODES = ("sim", "driver", "rollout", "recorder")
_ACTORS = ("expert", "policy")
_POLICY_SHARE = 0.3
_VICTIMS = ("launch", "driver", "sim", "policy")
_ACTIONS = ("kill", "stop", "restart")
_MOTION_S = 180.0
_REAPED_S = 12.0
"""Within this time after everything ended the shared memory is gone."""


def run(part: PartRun) -> None:
    """Run the part."""
    count = part.scaled(_AT_TWENTY, full=_FULL, least=2)
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
    clean = part.promise(
        "clean",
        "no process and no shared-memory file is left",
        planned=count // _LAUNCH_EVERY + (count > 1),
        unit="shutdowns",
    )
    cases = cases_of(count, part.only_case)
    for number in cases["launch"]:
        if part.in_time():
            part.say(f"launch {number + 1} of {count}")
            _launch(part, part.case(number), reports, clean)
    for actor in _ACTORS:
        numbers = cases[actor]
        if not numbers:
            continue
        # The second bench has its part of the time.
        share = 1.0 if actor == _ACTORS[-1] or part.full else 0.6
        until_s = time.monotonic() + share * max(_MOTION_S, part.until_s - time.monotonic())
        with Rig(part.scratch / actor, number=_ACTORS.index(actor)) as rig:
            _start_all(part, rig, actor)
            before = holds.held
            for number in numbers:
                if not part.full and time.monotonic() > until_s:
                    break
                part.say(f"fault {number + 1} of {count}")
                _fault(part, rig, actor, part.case(number), recovers)
                _count_holds(rig, part.case(number), holds, before)
            seen = rig.processes.shared_memory()
            rig.processes.close()
            _require_clean(rig.processes, seen, clean)
    _read_results(part, recovers)


def cases_of(count: int, only: int | None) -> dict[str, list[int]]:
    """Return the numbers of the cases by what they act on: "launch", or the nodes beneath an actor.

    `only` one of them, where a number is given, stands where it does among all `count`.
    """
    rest = [number for number in range(count) if number % _LAUNCH_EVERY != _LAUNCH_EVERY - 1]
    late = rest[len(rest) - round(_POLICY_SHARE * len(rest)) :] if len(rest) > 1 else []
    found: dict[str, list[int]] = {"launch": [], **{actor: [] for actor in _ACTORS}}
    for number in range(count) if only is None else [only]:
        actor = _ACTORS[bool(late) and number >= late[0]]
        found["launch" if number % _LAUNCH_EVERY == _LAUNCH_EVERY - 1 else actor].append(number)
    return found


def _start_all(part: PartRun, rig: Rig, actor: str) -> None:
    rig.start("sim", parameters={"camera_rate_hz": 15.0 if actor == "policy" else 5.0})
    rig.start("driver")
    rig.wait_ready("sim", "driver")
    if actor == "policy":
        from chatvla_policy.systems.untrained import save_untrained

        save_untrained(part.scratch / "untrained", robot="arx_r5")
        rig.start("policy", parameters={"checkpoint": str(part.scratch / "untrained")})
    else:
        rig.start("expert")
    rig.start("recorder", words=["--out", str(part.scratch / f"bag-{actor}")])
    rig.wait_ready(actor, "recorder")
    _start_rollout(part, rig, actor, 0)


def _start_rollout(part: PartRun, rig: Rig, actor: str, number: int) -> None:
    rig.start(
        "rollout",
        parameters={
            "trials": 9999,
            "split": "in_domain",
            "policy": actor,
            "seed": number,
            "timeout": 20.0,
            "wait": 300.0,
            "out": str(part.scratch / f"out-{actor}-{number}"),
        },
    )


def _count_holds(rig: Rig, case: Case, holds: Promise, before: int) -> None:
    audit = rig.audit()
    holds.require(not audit.broken, f"{audit.broken[:1]}", case)
    holds.held = before + audit.holds
    holds.notes[f"ticks of {rig.folder.name}"] = audit.ticks
    holds.largest("slowest rest s", audit.slowest_rest_s)


def _read_results(part: PartRun, recovers: Promise) -> None:
    """Require that each trial of each scorer succeeded or names its cause; note how many ended in a named error."""
    trials = [
        trial
        for path in sorted(part.scratch.glob("out-*/results.json"))
        for trial in json.loads(path.read_text(encoding="utf-8"))["trials"]
    ]
    nameless = [trial for trial in trials if not trial["success"] and not trial["cause"]]
    recovers.require(not nameless, f"{len(nameless)} trials failed without a cause")
    errors = [trial["cause"] for trial in trials if trial["cause"].startswith("error:")]
    recovers.require(all(len(cause) > len("error:") for cause in errors), "an error has no sentence")
    recovers.notes.update({"trials": len(trials), "ended in a named error": len(errors)})


def _fault(part: PartRun, rig: Rig, actor: str, case: Case, recovers: Promise) -> None:
    random = case.random()
    name, action = str(random.choice((actor, *_NODES))), str(random.choice(_ACTIONS))
    _wait_for_motion(part, rig, actor, case, recovers, f"before {action} of {name}")
    time.sleep(float(random.uniform(0.0, 2.0)))
    said = len(rig.processes["rollout"].text())
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
        _restart(part, rig, actor, name, case.number)
    _wait_for_motion(part, rig, actor, case, recovers, f"after {action} of {name}", said=said)
    recovers.hold()
    what = f"{action} {name}"
    recovers.notes[what] = int(recovers.notes.get(what, 0)) + 1


def _restart(part: PartRun, rig: Rig, actor: str, name: str, number: int) -> None:
    if name == "rollout":
        _start_rollout(part, rig, actor, number + 1)
    elif name == "recorder":
        rig.start("recorder", words=["--out", str(part.scratch / f"bag-{number + 1}")])
    else:
        rig.processes.restart(name)


def _wait_for_motion(
    part: PartRun, rig: Rig, actor: str, case: Case, recovers: Promise, when: str, *, said: int | None = None
) -> None:
    """Wait until the driver plays chunks that are newer than now; start the scorer anew where it ended in a sentence.

    `said`: where the scorer's log stood at the fault; a line in it must then name what went wrong, or score a trial.
    """
    chunks = rig.audit().chunks
    end_s = time.monotonic() + _MOTION_S
    while rig.audit().chunks < chunks + 3:
        rollout = rig.processes["rollout"]
        if not rollout.alive:
            words = rollout.text().strip().splitlines()[-20:]
            named = rollout.process.returncode in (-signal.SIGKILL, 130) or any(
                re.match(r"rollout: \S|  results ", line) for line in words
            )
            recovers.require(named, f"{when}: the scorer ended without a sentence: {words[-5:]}", case)
            recovers.notes["scorer started anew"] = int(recovers.notes.get("scorer started anew", 0)) + 1
            _start_rollout(part, rig, actor, case.number + 1000)
        for name in ("sim", "driver", actor):
            member = rig.processes[name]
            recovers.require(member.alive, f"{when}: {name} died too: {member.text()[-500:]}", case)
        if time.monotonic() > end_s:
            recovers.require(
                False,
                f"{when}: no motion within {_MOTION_S:g} s; driver {rig.driver_reports[-1:]}; "
                f"scorer {rig.processes['rollout'].text()[said or 0 :][-500:]}; "
                + "; ".join(f"{name} {rig.processes[name].text()[-500:]}" for name in ("sim", actor)),
                case,
            )
        time.sleep(0.1)


def _launch(part: PartRun, case: Case, reports: Promise, clean: Promise) -> None:
    random = case.random()
    victim = _VICTIMS[case.number // _LAUNCH_EVERY % len(_VICTIMS)]
    command = [sys.executable, "-m", "chatvla_cli.main", "launch", "math_match", "policy:=expert", "trials:=0"]
    command += [f"out:={part.scratch / f'launch-{case.number}'}"]
    domain = str(100 - int(random.integers(5)))
    with ProcessSet(part.scratch / f"launch-log-{case.number}", {"ROS_DOMAIN_ID": domain}) as processes:
        launch = processes.start("launch", command)
        reports.require(processes.wait_for("launch", "is ready", 120.0), f"launch: {launch.text()[-800:]}", case)
        pids = _children(launch.process.pid)
        seen = {name for pid in pids for name in mapped_files(pid)}
        if victim == "launch":
            time.sleep(1.0)
            launch.process.kill()
            reports.require(wait_until(lambda: not processes.descendants(), 15.0), "nodes outlive their launcher", case)
            reports.notes["launch itself killed"] = int(reports.notes.get("launch itself killed", 0)) + 1
            reports.hold()
            _require_clean(processes, seen, clean, case)
            return
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


def _require_clean(processes: ProcessSet, seen: set[str], clean: Promise, case: Case | None = None) -> None:
    wait_until(lambda: not processes.descendants(), 5.0)
    left = processes.descendants()
    clean.require(not left, f"processes are left: {left}", case)
    # A file that a dying process still maps when its launch ends is the reaper's, which waits for that process.
    wait_until(lambda: not _left_over(seen), _REAPED_S)
    files = _left_over(seen)
    clean.require(not files, f"shared memory is left: {files}", case)
    clean.hold()


def _left_over(seen: set[str]) -> list[str]:
    """Return those of the shared-memory files `seen` that nobody uses: what a live process maps is not left over."""
    used = files_in_use()
    return [name for name in seen if (SHM / name).exists() and name not in used]
