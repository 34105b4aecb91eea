# SPDX-License-Identifier: Apache-2.0
"""Check every command of a driver in the driver itself: limits at each tick, rest after the last chunk. No ROS.

The controller is the driver's own; this one only looks on. Findings go into a file that survives SIGKILL: one JSON
object a line, with what happened since the line before.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_controller import ArmController
from chatvla_control.campaign import broken_promise
from chatvla_control.chunk_fault import ChunkFault
from chatvla_control.chunk_player import Command, PlayPhase
from chatvla_control.contracts import ActionChunk
from chatvla_control.motion_limits import MotionLimits
from chatvla_control.robot_spec import RobotSpec

__all__ = ["AUDIT_FILE", "AuditReader", "AuditReport", "AuditedController", "read_audit"]

AUDIT_FILE = "CHATVLA_TORTURE_AUDIT"
"""Environment variable that names the file."""
HOLD_AFTER_PERIODS = 2
"""Control periods after the last chunk's end within which the arm must hold."""
REST_WITHIN_S = 1.0
_STILL = 1e-9
_WRITE_EVERY = 25
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What an audit found over the lives of all drivers that wrote into one file."""

    ticks: int
    """Commands that were checked."""
    chunks: int
    """Accepted chunks."""
    holds: int
    """Ends of chunks after which the arm was seen to come to rest."""
    slowest_rest_s: float
    """Longest time from the end of a chunk to rest."""
    broken: tuple[str, ...]


class _Log:
    """Appends lines to the audit's file; each is written whole."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, **values: Any) -> None:
        os.write(self._handle, (json.dumps(values) + "\n").encode())


class AuditedController(ArmController):
    """An ArmController whose commands are checked."""

    def __init__(self, spec: RobotSpec, **settings: Any) -> None:
        super().__init__(spec, **settings)
        self._limits = MotionLimits.of(spec)
        self._log = _Log(Path(os.environ[AUDIT_FILE]))
        self._before: Command | None = None
        self._counts = {"ticks": 0, "chunks": 0}
        self._end_s = np.inf
        self._tail: list[Array] = []

    def accept(self, chunk: ActionChunk, *, now_s: float, measured: Array | None) -> ChunkFault | None:
        """Pass the chunk on; note when an accepted one ends."""
        fault = super().accept(chunk, now_s=now_s, measured=measured)
        if fault is None:
            self._counts["chunks"] += 1
            self._end_s = min(chunk.valid_until_s, chunk.start_s + (len(chunk.actions) - 1) * chunk.step_period_s)
            self._tail = []
        return fault

    def step(self, *, now_s: float, measured: Array | None, elapsed_s: float | None = None) -> Command | None:
        """Return the controller's command after checking it."""
        was_fault = self.fault
        command = super().step(now_s=now_s, measured=measured, elapsed_s=elapsed_s)
        if command is None:
            self._before = None
            self._tail, self._end_s = [], np.inf
            return None
        if self._before is not None and (why := broken_promise(self._limits, self._before, command)):
            self._log.write(broken=f"at {now_s:.3f} s: {why}")
        self._before = command
        self._counts["ticks"] += 1
        if self.fault != was_fault:
            self._end_s = np.inf
        self._watch_hold(command, now_s)
        if self._counts["ticks"] >= _WRITE_EVERY:
            self._log.write(**self._counts)
            self._counts = dict.fromkeys(self._counts, 0)
        return command

    def _start(self, measured: Array, now_s: float) -> bool:
        """Start from the measured pose: the next command follows rest there, not the last command."""
        if not super()._start(measured, now_s):
            return False
        positions = self._player.positions
        self._before = Command(
            positions=positions, velocities=np.zeros_like(positions), phase=PlayPhase.HOLDING, tick_s=0.0
        )
        return True

    def _watch_hold(self, command: Command, now_s: float) -> None:
        """From two periods after the last chunk's end on, every joint only nears the place where it comes to rest."""
        after_s = now_s - self._end_s
        if after_s < HOLD_AFTER_PERIODS / self.spec.rate_hz:
            return
        self._tail.append(command.positions)
        if np.abs(command.velocities).max() > _STILL:
            if after_s > REST_WITHIN_S and len(self._tail) * 1.0 / self.spec.rate_hz > REST_WITHIN_S:
                self._log.write(broken=f"at {now_s:.3f} s: moves {after_s:.2f} s after the end of its last chunk")
                self._end_s = np.inf
            return
        distances = np.abs(np.stack(self._tail) - command.positions)
        if (np.diff(distances, axis=0) > _STILL).any():
            joint = int(np.argmax(np.diff(distances, axis=0).max(axis=0))) if len(distances) > 1 else 0
            name = self.spec.joint_names[joint]
            self._log.write(broken=f"at {now_s:.3f} s: {name} moved on after the end of its last chunk")
        self._log.write(holds=1, rest_s=round(after_s, 4))
        self._end_s = np.inf


class AuditReader:
    """Reads an audit's file on from where it stopped: the file grows as long as a driver runs."""

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, 0
        self._rest = b""
        self._report = AuditReport(ticks=0, chunks=0, holds=0, slowest_rest_s=0.0, broken=())

    def read(self) -> AuditReport:
        """Return what the file says up to now."""
        if not self._path.exists():
            return self._report
        with self._path.open("rb") as file:
            file.seek(self._place)
            data = file.read()
        self._place += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if whole:
            self._report = _added(self._report, [json.loads(line) for line in whole])
        return self._report


def _added(report: AuditReport, lines: list[dict[str, Any]]) -> AuditReport:
    return AuditReport(
        ticks=report.ticks + sum(line.get("ticks", 0) for line in lines),
        chunks=report.chunks + sum(line.get("chunks", 0) for line in lines),
        holds=report.holds + sum(line.get("holds", 0) for line in lines),
        slowest_rest_s=max([report.slowest_rest_s, *(line["rest_s"] for line in lines if "rest_s" in line)]),
        broken=(*report.broken, *(line["broken"] for line in lines if "broken" in line)),
    )


def read_audit(path: Path) -> AuditReport:
    """Return what the file says."""
    return AuditReader(path).read()
