# SPDX-License-Identifier: Apache-2.0
"""Run one arm at its control rate: read the port, step the controller, write the port. One thread; knows no topics.

Times in s. The steady clock paces the loop and measures ticks; chunk times are judged by the clock passed in (ROS
time).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chatvla_control.arm_controller import ArmController, ControllerStatus
from chatvla_control.arm_port import ArmPort, ArmStateMissingError, CommandRefusedError, JointState
from chatvla_control.chunk_check import ChunkFault
from chatvla_control.chunk_player import Command
from chatvla_control.contracts import ActionChunk

__all__ = ["ControlLoop", "Jitter", "Tick"]

_KEPT_TICKS = 1000
_BRAKE_SPARE_S = 0.5
"""What braking at the end may take beyond the time that the limits need."""
_REST_S = 0.2
"""So long the end waits at rest: the measured pose, which is then held, lags behind the command."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What one tick saw and did."""

    state: JointState | None
    """None when the joints are unknown."""
    command: Command | None
    """None when nothing was commanded, or the arm did not take it."""
    now_s: float


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """How far tick-to-tick times deviate from the control period over the last 1000 ticks, milliseconds."""

    p50_ms: float
    p99_ms: float
    max_ms: float


class ControlLoop:
    """The thread that owns the port. Everything public may be called from other threads."""

    def __init__(
        self,
        port: ArmPort,
        controller: ArmController,
        *,
        clock: Callable[[], float],
        on_tick: Callable[[Tick], None],
        state_timeout_s: float,
        realtime_priority: int = 0,
        on_crash: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_tick` may fail: the loop goes on. `on_crash` is called when the loop itself ended by an error."""
        self._port = port
        self._controller = controller
        self._clock = clock
        self._on_tick = on_tick
        self._state_timeout_s = state_timeout_s
        self._realtime_priority = realtime_priority
        self._on_crash = on_crash
        self._crash = ""
        self._unsaid: tuple[int, str] = (0, "")
        self._period_s = 1.0 / controller.rate_hz
        spec = controller.spec
        self._brake_s = float((spec.velocity / spec.acceleration).max()) + _BRAKE_SPARE_S
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control_loop", daemon=True)
        self._state: JointState | None = None
        self._waiting_for = ""
        self._connected = False
        self._port_failed = False
        self._port_held = False
        self._intervals: deque[float] = deque(maxlen=_KEPT_TICKS)

    def start(self) -> None:
        """Connect the port and begin ticking. Raises ArmPortError when the arm cannot be reached."""
        self._port.connect()
        self._connected = True
        self._thread.start()

    def close(self) -> None:
        """Brake within the limits, hold, and close the port; returns when that is done.

        Joint states must go on arriving meanwhile: who calls it serves the node's callbacks.
        """
        if not self._ending.is_set():
            with self._lock:
                self._ending.set()
                self._controller.stop("the driver shuts down")
            if self._thread.is_alive():
                self._thread.join(self._brake_s + 2.0)

    def accept(self, chunk: ActionChunk) -> ChunkFault | None:
        """Pass a chunk to the controller with the newest measured state; return why it was refused."""
        with self._lock:
            now_s = self._clock()
            state = self._state if self._fresh(self._state, now_s) else None
            return self._controller.accept(chunk, now_s=now_s, measured=None if state is None else state.positions)

    def refuse(self, fault: ChunkFault) -> None:
        """Count a chunk that could not be read."""
        with self._lock:
            self._controller.refuse(fault)

    def stop(self, reason: str) -> None:
        """Brake, hold and latch."""
        with self._lock:
            self._controller.stop(reason)

    def clear_fault(self) -> str | None:
        """Release the latch; the port is connected anew when it had failed. Returns the fault's sentence or None.

        A loop that ends keeps its latch.
        """
        with self._lock:
            if self._ending.is_set():
                return None
            if self._port_failed:
                # Where the arm is when it is reached again nobody knows now.
                self._controller.lose()
            self._port_failed = False
            return self._controller.clear_fault()

    def status(self) -> tuple[ControllerStatus, str]:
        """Return the controller's status and what the loop waits for (empty when nothing)."""
        with self._lock:
            return self._controller.status(), self._waiting_for

    def trouble(self) -> tuple[str, int, str]:
        """Return why the loop ended by itself (empty while it runs), how many `on_tick` failed, and the last error."""
        with self._lock:
            return self._crash, *self._unsaid

    def jitter(self) -> Jitter | None:
        """Return the loop's timing; None before the second tick."""
        with self._lock:
            intervals = np.array(self._intervals)
        if intervals.size == 0:
            return None
        off_ms = np.abs(intervals - self._period_s) * 1e3
        p50, p99 = np.percentile(off_ms, (50, 99))
        return Jitter(p50_ms=float(p50), p99_ms=float(p99), max_ms=float(off_ms.max()))

    def _run(self) -> None:
        if self._realtime_priority > 0:
            # Without the right (CAP_SYS_NICE) the loop runs at the default priority; jitter then shows in diagnostics.
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self._realtime_priority))
        try:
            self._tick_until_ended()
        except Exception as error:
            with self._lock:
                self._crash = f"the control loop ended: {type(error).__name__}: {error}"
                self._controller.latch(self._crash)
        self._try(self._port.stop)
        self._try(self._port.close)
        if self._crash:
            self._on_crash()

    def _tick_until_ended(self) -> None:
        due_s = last_s = time.monotonic()
        brake_until_s: float | None = None
        moved_s = -np.inf
        while True:
            due_s += self._period_s
            behind_s = time.monotonic() - due_s
            if behind_s > self._period_s:
                due_s += behind_s
            elif behind_s < 0.0:
                time.sleep(-behind_s)
            tick_s = time.monotonic()
            with self._lock:
                self._intervals.append(tick_s - last_s)
            command = self._tick(tick_s - last_s)
            last_s = tick_s
            if command is not None and command.velocities.any():
                moved_s = tick_s
            if self._ending.is_set():
                brake_until_s = brake_until_s or tick_s + self._brake_s
                if command is None or tick_s - moved_s > _REST_S or tick_s > brake_until_s:
                    return

    def _tick(self, elapsed_s: float) -> Command | None:
        state = self._read()
        with self._lock:
            now_s = self._clock()
            self._state = state
            fresh = self._fresh(state, now_s)
            if state is not None and not fresh:
                self._waiting_for = (
                    f"joint states are {now_s - state.stamp_s:.2f} s old, limit {self._state_timeout_s} s"
                )
            measured = state.positions if state is not None and fresh else None
            command = self._controller.step(now_s=now_s, measured=measured, elapsed_s=elapsed_s)
        taken = command is not None and self._move(command)
        if command is not None:
            self._port_held = False
        elif not self._port_held:
            self._port_held = True
            self._try(self._port.stop)
        try:
            self._on_tick(Tick(state=state if fresh else None, command=command if taken else None, now_s=now_s))
        except Exception as error:
            # What others hear of it must not end the control of the arm: a time that no message holds, say.
            with self._lock:
                self._unsaid = self._unsaid[0] + 1, f"{type(error).__name__}: {error}"
        return command

    def _move(self, command: Command) -> bool:
        """Pass a command on; return whether the arm took it.

        After a fault these are commands that brake: what of the arm can still be reached comes to rest by them, before
        the port is told to stop, which would command the measured pose at once.
        """
        try:
            self._port.move(command.positions, command.velocities)
        except CommandRefusedError as error:
            with self._lock:
                self._controller.latch(str(error))
        except Exception as error:
            self._fail(error)
        else:
            return True
        return False

    def _read(self) -> JointState | None:
        if self._port_failed:
            self._connected = False
            return None
        if not self._connected:
            self._connected = self._try(self._port.connect)
            if not self._connected:
                return None
        try:
            state = self._port.read()
            self._waiting_for = ""
            return state
        except ArmStateMissingError as error:
            self._waiting_for = str(error)
        except Exception as error:
            self._fail(error)
        return None

    def _try(self, call: Callable[[], None]) -> bool:
        """Call the port; latch a fault when it raises. Returns True when it did not."""
        try:
            call()
        except Exception as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._port_failed = True
            self._controller.latch(f"port error: {error}")

    def _fresh(self, state: JointState | None, now_s: float) -> bool:
        return state is not None and abs(now_s - state.stamp_s) <= self._state_timeout_s
