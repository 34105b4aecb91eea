# SPDX-License-Identifier: Apache-2.0
"""Overload the bench: busy processors, four more cameras, a slow subscriber, a policy ten times slower, a full disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rosbags.rosbag2 import Reader

from chatvla_torture.campaign import TWENTY, PartRun
from chatvla_torture.processes import wait_until
from chatvla_torture.promise import Case, Promise
from chatvla_torture.ros.rig import NAMESPACE, Rig

__all__ = ["run"]

_SECONDS = 15.0
_DISK_MB = 24
_LEAST_FREE_MB = 8


def run(part: PartRun) -> None:
    """Run the part."""
    seconds = _SECONDS if part.full else max(3.0, _SECONDS * part.minutes / TWENTY)
    loads: tuple[tuple[str, Callable[[Rig, float], None]], ...] = (
        ("busy processors", _busy),
        ("four more cameras and a slow subscriber", _crowd),
        ("a policy ten times slower", _slow_policy),
    )
    hold = part.promise(
        "late",
        "under load a late tick is counted and reported, and late means hold, never late motion outside the limits",
        planned=len(loads),
        unit="loads",
    )
    disk = part.promise(
        "disk", "the recorder stops with a sentence before the disk is full, and its bag can be read", planned=1
    )
    with Rig(part.scratch / "rig") as rig:
        rig.start("sim", parameters={"camera_rate_hz": 30.0})
        rig.start("driver")
        rig.start("expert")
        rig.wait_ready("sim", "driver", "expert")
        out = str(part.scratch / "out")
        rig.start("rollout", parameters={"trials": 9999, "split": "in_domain", "policy": "expert", "out": out})
        for case in part.cases(len(loads) + 1):
            if case.number < len(loads):
                name, burden = loads[case.number]
                _under(rig, name, lambda rig=rig, burden=burden: burden(rig, seconds), case, hold)
            else:
                _full_disk(part, rig, case, disk)


def _under(rig: Rig, name: str, burden: Callable[[], None], case: Case, hold: Promise) -> None:
    chunks = rig.audit().chunks
    rig.until(lambda: rig.audit().chunks > chunks, 90.0)
    misses = int(rig.driver_reports[-1].get("deadline_misses", "0"))
    burden()
    time.sleep(1.5)
    audit = rig.audit()
    hold.require(not audit.broken, f"{name}: {audit.broken[:1]}", case)
    report = rig.driver_reports[-1]
    hold.require("deadline_misses" in report and "jitter_p99_ms" in report, f"{name}: misses are not reported", case)
    chunks = rig.audit().chunks
    hold.require(rig.until(lambda: rig.audit().chunks > chunks, 120.0), f"{name}: no motion afterwards", case)
    hold.notes[name] = f"{int(report['deadline_misses']) - misses} late ticks, jitter p99 {report['jitter_p99_ms']} ms"
    hold.hold()


def _busy(rig: Rig, seconds: float) -> None:
    names = [f"busy{k}" for k in range(os.cpu_count() or 2)]
    for name in names:
        rig.processes.start(name, [sys.executable, "-m", "chatvla_torture.ros.burden", "busy"])
    time.sleep(seconds)
    for name in names:
        rig.processes.signal(name, signal.SIGKILL)


def _crowd(rig: Rig, seconds: float) -> None:
    for kind in ("cameras", "slow"):
        command = [sys.executable, "-m", "chatvla_torture.ros.burden", kind, "--ros-args", "-r", f"__ns:=/{NAMESPACE}"]
        rig.processes.start(kind, command)
    time.sleep(seconds)
    for kind in ("cameras", "slow"):
        rig.processes.signal(kind, signal.SIGKILL)


def _slow_policy(rig: Rig, seconds: float) -> None:
    """Let the policy run a tenth of the time."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        rig.processes.signal("expert", signal.SIGSTOP)
        time.sleep(0.9)
        rig.processes.signal("expert", signal.SIGCONT)
        time.sleep(0.1)


def _full_disk(part: PartRun, rig: Rig, case: Case, disk: Promise) -> None:
    place = part.scratch / "disk"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", str(place)]
    if subprocess.run(options, capture_output=True).returncode != 0:
        disk.notes["not tried"] = "mounting a small disk needs root"
        return
    try:
        # Three quarters full already, so that seconds of recording reach the limit.
        (place / "filler").write_bytes(bytes(int((_DISK_MB - _LEAST_FREE_MB - 4) * 1e6)))
        words = ["--out", str(place / "bag"), "--min-free-mb", str(_LEAST_FREE_MB), "--topics", "/*"]
        recorder = rig.start("recorder", words=words)
        disk.require(wait_until(lambda: not recorder.alive, 120.0), "the recorder never stopped", case)
        free = shutil.disk_usage(place).free
        disk.require(recorder.process.returncode == 1, f"exit code {recorder.process.returncode}", case)
        disk.require("MB are free" in recorder.text(), f"it said: {recorder.text()[-400:]}", case)
        disk.require(free > 0, "the disk is full", case)
        count = _messages(place / "bag")
        disk.require(count > 0, "the bag holds nothing", case)
        disk.notes.update({"messages kept": count, "MB left": round(free / 1e6, 1)})
        disk.hold()
    finally:
        subprocess.run(["umount", "-l", str(place)], capture_output=True)


def _messages(bag: Path) -> int:
    with Reader(bag) as reader:
        return sum(1 for _ in reader.messages())
