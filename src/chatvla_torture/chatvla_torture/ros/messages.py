# SPDX-License-Identifier: Apache-2.0
"""Random and mutated messages on every topic, service and action that our nodes offer, as fast as 1 kHz each.

One case is one group of nodes under attack, in processes of their own; the driver checks itself at every tick.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chatvla_control.chunk_fault import FaultCode
from chatvla_msgs.srv import OverrideReasoning, ResetBench
from chatvla_torture.campaign import PartRun
from chatvla_torture.processes import wait_until
from chatvla_torture.promise import Case, Promise
from chatvla_torture.ros.rig import Rig
from chatvla_torture.ros.targets import Target, actions, services, topics

__all__ = ["run"]

_RATE_HZ = 1000.0
_AT_TWENTY = 6000
_FULL = 100_000
"""Messages to each topic and service."""
_PATIENCE_S = 600.0
"""A full campaign waits this long for services after the last topic; what takes a model's answer is slow."""
_LINES_PER_S = 12.0
_LOGGED = re.compile(r"\[(DEBUG|INFO|WARN|ERROR|FATAL)\] ")
_NOISE = re.compile(r">>>|<<<|This error state|\s+'Fast CDR|with this new error|rcutils_reset_error|sequence size")
_LONGEST_LINE = 2000
_LEAST_S, _START_S = 5.0, 15.0
_AUDIT_S = 10.0
_GROWTH, _GROWTH_BYTES = 0.15, 24e6
_WAITING_BYTES = {"recorder": 250e6}
"""More for who lets messages wait: the recorder a hundred of each topic, of ours a tenth with 0.8 to 2.4 MB."""


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Nodes, and what is sent to them."""

    name: str
    nodes: tuple[str, ...]
    targets: Callable[[Rig], list[Target]]
    alone: bool = False
    """The attacked nodes come first, without simulator and driver, and must work with these afterwards."""


_GROUPS = (
    _Group(
        name="driver",
        nodes=("sim", "driver"),
        targets=lambda rig: (
            topics(rig, ("action_chunk",), sound=0.3)
            + services(rig, ("driver/stop", "driver/clear_fault", "driver/set_parameters"))
        ),
    ),
    _Group(
        name="bench",
        nodes=("sim", "driver", "expert", "recorder"),
        targets=lambda rig: (
            topics(
                rig,
                (
                    "sim/joint_states",
                    "sim/joint_command",
                    "joint_states",
                    "sim/bench_state",
                    "/diagnostics",
                    "action_chunk",
                ),
            )
            + services(rig, ("sim/reset_bench", "override_reasoning", "driver/clear_fault", "sim/set_parameters"))
            + actions(rig)
        ),
    ),
    _Group(
        name="policy",
        nodes=("sim", "driver", "policy"),
        targets=lambda rig: (
            topics(rig, ("camera/top/image_raw", "joint_states", "/diagnostics", "instruction"))
            + services(rig, ("override_reasoning", "ask", "driver/clear_fault", "policy/set_parameters"))
            + actions(rig)
        ),
    ),
    _Group(
        name="clock",
        nodes=("sim", "driver"),
        targets=lambda rig: topics(rig, ("/clock", "action_chunk"), sound=0.8) + services(rig, ("driver/clear_fault",)),
    ),
    _Group(
        name="scorer",
        nodes=("sim", "driver", "expert", "rollout"),
        targets=lambda rig: topics(rig, ("reasoning", "/diagnostics", "action_chunk", "camera/top/image_raw")),
    ),
    # While a scorer runs a trial it refuses a second sender of these two.
    _Group(
        name="waiting scorer",
        nodes=("rollout",),
        targets=lambda rig: topics(rig, ("sim/bench_state", "joint_states")),
        alone=True,
    ),
)


@dataclass(frozen=True, kw_only=True)
class _Promises:
    alive: Promise
    limits: Promise
    memory: Promise
    log: Promise


def run(part: PartRun) -> None:
    """Run the part."""
    each = part.scaled(_AT_TWENTY, full=_FULL, least=60)
    promises = _Promises(
        alive=part.promise("alive", "no node dies or stops answering", planned=each * len(_GROUPS), unit="messages"),
        limits=part.promise(
            "limits", "no command leaves the driver outside its limits", planned=each // 100, unit="ticks"
        ),
        memory=part.promise(
            "memory", "no node grows", planned=sum(len(group.nodes) for group in _GROUPS), unit="nodes"
        ),
        log=part.promise("log", "each refusal has a name and the log is rate-limited", planned=1, unit="lines"),
    )
    for case in part.cases(len(_GROUPS)):
        group = _GROUPS[case.number % len(_GROUPS)]
        with Rig(part.scratch / group.name.replace(" ", "_"), number=case.number) as rig:
            _attack(part, rig, group, each, case, promises)


def _attack(part: PartRun, rig: Rig, group: _Group, each: int, case: Case, promises: _Promises) -> None:
    _start(part, rig, group)
    targets = group.targets(rig)
    members = [rig.processes[name] for name in group.nodes]
    before = _send(part, rig, group, targets, each, case, promises)
    sent, seconds = sum(target.sent for target in targets), before.pop("", 1.0)
    if group.alone:
        _start_rest(part, rig, targets)
    _answers(rig, group, case, promises.alive)
    for member in members:
        promises.alive.require(member.alive, f"{group.name}: {_last_words([member])}", case)
        now, first = member.usage().memory_bytes, before[member.name]
        promises.memory.require(
            now - first < _GROWTH * first + _GROWTH_BYTES + _WAITING_BYTES.get(member.name, 0.0),
            f"{group.name}: {member.name} grew from {first / 1e6:.0f} to {now / 1e6:.0f} MB",
            case,
        )
        promises.memory.hold()
        promises.memory.largest("largest growth", round((now - first) / first, 4))
        _read_log(member.name, member.text(), seconds, case, promises.log)
    promises.alive.planned += each * (len(targets) - 1)
    promises.alive.hold(sent)
    slow = [
        f"{target.name} {target.sent}" + (f" ({target.given_up} unanswered)" if target.given_up else "")
        for target in targets
        if target.sent < each or target.given_up
    ]
    promises.alive.notes[group.name] = f"{len(targets)} x {each} at {sent / seconds:.0f}/s" + (
        f", but {', '.join(slow)}" if slow else ""
    )
    # A short attack ends before the audit's first line; a driver that no longer ticks is found by `_answers`.
    wait_until(lambda: rig.audit().ticks, _AUDIT_S)
    audit = rig.audit()
    promises.limits.require(not audit.broken, f"{group.name}: {audit.broken[:1]}", case)
    promises.limits.hold(audit.ticks)
    promises.limits.notes["chunks played"] = int(promises.limits.notes.get("chunks played", 0)) + audit.chunks
    refused = {key.removeprefix("refused.") for key in rig.driver_reports[-1] if key.startswith("refused.")}
    promises.log.require(refused <= {code.value for code in FaultCode}, f"unnamed refusals: {refused}", case)


def _send(
    part: PartRun, rig: Rig, group: _Group, targets: list[Target], each: int, case: Case, promises: _Promises
) -> dict[str, float]:
    """Send `each` messages to every target, up to 1 kHz each.

    Return the bytes of every node after a quarter of them, and under "" how long it took [s].
    """
    random = case.random()
    members = [rig.processes[name] for name in group.nodes]
    used = {member.name: float(member.usage().memory_bytes) for member in members}
    started_s = time.monotonic()
    measured, rounds, topics_done_s = False, 0, 0.0
    until_s = part.until_s if case.number == len(_GROUPS) - 1 else _share_until(part, case.number)
    while pending := [target for target in targets if target.sent < each]:
        due_s = started_s + rounds / _RATE_HZ
        if (ahead_s := due_s - time.monotonic()) > 0:
            time.sleep(ahead_s)
        for target in pending:
            target.sent += target.send(random)
        rounds += 1
        if not measured and rounds >= each // 4:
            measured = True
            used = {member.name: float(member.usage().memory_bytes) for member in members if member.alive}
        if rounds % 200:
            continue
        part.say(f"{group.name}: " + ", ".join(f"{target.name} {target.sent}" for target in pending))
        dead = [member for member in members if not member.alive]
        promises.alive.require(not dead, f"{group.name}: {_last_words(dead)}", case)
        now_s = time.monotonic()
        if rounds >= each:
            topics_done_s = topics_done_s or now_s
        if (topics_done_s and now_s - topics_done_s > _PATIENCE_S) or (not part.full and now_s > until_s):
            break
    return used | {"": time.monotonic() - started_s}


def _share_until(part: PartRun, number: int) -> float:
    """Return until when group `number` may send, so that those after it have their time."""
    now_s = time.monotonic()
    return now_s + max(_LEAST_S, (part.until_s - now_s) / (len(_GROUPS) - number) - _START_S)


def _start_rest(part: PartRun, rig: Rig, targets: list[Target]) -> None:
    """Fall silent, and start what the attacked nodes wait for."""
    for target in targets:
        target.stop()
    rig.start("sim", parameters={"camera_rate_hz": 10.0})
    rig.start("driver")
    rig.start("expert")
    rig.wait_ready("sim", "driver", "expert")


def _start(part: PartRun, rig: Rig, group: _Group) -> None:
    if group.alone:
        _start_rollout(part, rig)
        rig.processes.wait_for("rollout", "waiting for", 60.0)
        return
    rig.start("sim", parameters={"camera_rate_hz": 10.0})
    rig.start("driver", parameters={"use_sim_time": True} if group.name == "clock" else {})
    if group.name == "clock":
        clock = topics(rig, ("/clock",))[0]
        rig.until(lambda: (clock.send(np.random.default_rng(0)), rig.phase() in ("holding", "playing"))[1], 60.0)
    if "policy" in group.nodes:
        from chatvla_policy.systems.untrained import save_untrained

        save_untrained(part.scratch / "untrained", robot="arx_r5")
        rig.wait_ready("sim", "driver")
        rig.start("policy", parameters={"checkpoint": str(part.scratch / "untrained")})
    if "expert" in group.nodes:
        rig.start("expert")
    if "recorder" in group.nodes:
        rig.start("recorder", words=["--out", str(part.scratch / f"bag-{group.name}")])
    if "rollout" in group.nodes:
        _start_rollout(part, rig)
    rig.wait_ready(*group.nodes)


def _start_rollout(part: PartRun, rig: Rig) -> None:
    out = part.scratch / "out"
    values = {
        "trials": 9999,
        "split": "in_domain",
        "out": str(out),
        "policy": "expert",
        "wait": 3600.0,
        "timeout": 20.0,
    }
    rig.start("rollout", parameters=values)


def _answers(rig: Rig, group: _Group, case: Case, alive: Promise) -> None:
    """Require an answer of every node that serves something."""
    alive.require(rig.trigger("clear_fault", 20.0) is not None, f"{group.name}: the driver answers no more", case)
    request = ResetBench.Request(split="in_domain", seed=1)
    answer = rig.call(ResetBench, "sim/reset_bench", request, 30.0)
    alive.require(answer is not None and answer.success, f"{group.name}: the simulator answers no more", case)
    if group.alone:
        chunks = rig.audit().chunks
        moved = rig.until(lambda: rig.audit().chunks > chunks, 60.0)
        alive.require(moved, f"the scorer runs no trial: {rig.processes['rollout'].text()[-500:]}", case)
    if "policy" in group.nodes or "expert" in group.nodes:
        release = OverrideReasoning.Request(scope=OverrideReasoning.Request.RELEASE)
        answer = rig.call(OverrideReasoning, "override_reasoning", release, 30.0)
        alive.require(answer is not None and answer.success, f"{group.name}: the policy answers no more", case)


def _read_log(name: str, text: str, seconds: float, case: Case, log: Promise) -> None:
    """Require few and short lines, and a code in each line that says a chunk was refused."""
    # ROS's own C library prints a paragraph for every message whose bytes are broken: that noise is not ours to limit.
    lines = [line for line in text.splitlines() if _LOGGED.match(line)]
    few = len(lines) < 100 + _LINES_PER_S * seconds
    log.require(few, f"{name} printed {len(lines)} lines in {seconds:.0f} s, such as {lines[50:300:50]!s:.1500}", case)
    longest = max(map(len, lines), default=0)
    log.require(longest < _LONGEST_LINE, f"{name} printed a line of {longest} characters", case)
    nameless = [line for line in lines if "refused chunk" in line and not re.search(r"\([a-z_]+\): \S", line)]
    log.require(not nameless, f"{name} refused without a name: {nameless[:1]}", case)
    log.require(
        "Traceback (most recent call last)" not in text, f"{name}: {text[text.find('Traceback') :][:1500]}", case
    )
    log.hold(len(lines))


def _last_words(dead: list) -> str:
    return "; ".join(
        f"{member.name} died ({member.process.returncode}): {_own(member.text())[-600:]}" for member in dead
    )


def _own(text: str) -> str:
    """Return the lines without those that ROS's C library prints for a message whose bytes are broken."""
    return "\n".join(line for line in text.splitlines() if line.strip() and not _NOISE.match(line))
