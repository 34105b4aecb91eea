# SPDX-License-Identifier: Apache-2.0
"""The control loop outlives what hears its ticks, and says so when it cannot go on. The arm is a kinematic one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from chatvla_control.arm_controller import ArmController
from chatvla_control.arm_port import ArmPort, ArmPortError, CommandRefusedError, JointState
from chatvla_control.ros.control_loop import ControlLoop, Tick
from chatvla_control.ros.errors import ConversionError

from .chunks import HOME, SPEC, chunk, swing, wave


class KinematicArm(ArmPort):
    """Is at once where it is commanded."""

    spec = SPEC

    def __init__(self) -> None:
        self.positions = HOME.copy()
        self.calls: list[str] = []

    def connect(self) -> None:
        self.calls.append("connect")

    def read(self) -> JointState:
        unknown = np.full(SPEC.width, np.nan)
        return JointState(positions=self.positions, velocities=unknown, efforts=unknown, stamp_s=time.time())

    def write(self, positions: NDArray[np.float64]) -> None:
        self.positions = positions

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


def loop_of(port: KinematicArm, on_tick: Callable[[Tick], None], **stated: Callable[..., object]) -> ControlLoop:
    options = {"clock": time.time, "state_timeout_s": 0.25} | stated
    return ControlLoop(port, ArmController(SPEC), on_tick=on_tick, **options)  # type: ignore[arg-type]


def wait(condition: Callable[[], object]) -> None:
    until_s = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


class FailingArm(KinematicArm):
    """Keeps what it is commanded; from `error` on it answers each call of `broken` with it."""

    def __init__(self, broken: str, error: Exception) -> None:
        super().__init__()
        self.broken, self.error = broken, error
        self.failing = False
        self.commands: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    def read(self) -> JointState:
        if self.failing and self.broken == "read":
            raise self.error
        return super().read()

    def move(self, positions: NDArray[np.float64], velocities: NDArray[np.float64]) -> None:
        self.commands.append((positions, velocities))
        if self.failing and self.broken == "move":
            raise self.error
        self.write(positions)


def failed_in_motion(port: FailingArm, ticks: list[Tick]) -> ControlLoop:
    """Swing left_joint1 and let the port fail at more than 1 rad/s; return the loop with its fault latched."""
    loop = loop_of(port, ticks.append)
    loop.start()
    now_s = time.time()
    taken = chunk(actions=swing(), stamp_s=now_s, start_s=now_s, valid_until_s=now_s + 3.0)
    wait(lambda: loop.accept(taken) is None)
    wait(lambda: port.commands and port.commands[-1][1][0] > 1.0)
    port.failing = True
    wait(lambda: loop.status()[0].fault)
    return loop


@pytest.mark.parametrize("broken", ["read", "move"])
def test_port_that_fails_in_motion_is_braked_before_it_is_stopped(broken: str) -> None:
    ticks: list[Tick] = []
    port = FailingArm(broken, ArmPortError("half of it is gone"))
    loop = failed_in_motion(port, ticks)
    wait(lambda: "stop" in port.calls)
    assert loop.status()[0].fault == "port error: half of it is gone"
    speeds = np.array([velocities[0] for _, velocities in port.commands])
    last = int(np.argmax(speeds))
    assert (np.diff(speeds[last:]) <= 0.0).all()
    assert speeds[-1] == 0.0
    assert len(speeds) - last > 3
    # What the arm did not take is not shown as commanded.
    shown = [tick.command.velocities[0] for tick in ticks if tick.command is not None]
    assert bool(shown[-1] == 0.0) is (broken == "read")
    port.failing = False
    loop.clear_fault()
    wait(lambda: not loop.status()[0].fault and ticks[-1].command is not None)
    loop.close()


def test_refused_command_latches_and_the_arm_goes_on_braking() -> None:
    ticks: list[Tick] = []
    port = FailingArm("move", CommandRefusedError("it collides"))
    loop = failed_in_motion(port, ticks)
    port.failing = False
    wait(lambda: not port.commands[-1][1].any())
    assert "stop" not in port.calls
    assert loop.status()[0].fault == "it collides"
    assert ticks[-1].state is not None
    loop.close()


def test_ticks_that_cannot_be_told_do_not_end_the_loop() -> None:
    def fail(tick: Tick) -> None:
        raise ConversionError("stamp", "time is 3e9 s")

    port = KinematicArm()
    loop = loop_of(port, fail)
    loop.start()
    now_s = time.time()
    taken = chunk(actions=wave() + 0.0, stamp_s=now_s, start_s=now_s, valid_until_s=now_s + 2.0)
    wait(lambda: loop.accept(taken) is None)
    wait(lambda: not np.array_equal(port.positions, HOME) and loop.trouble()[1] > 2)
    crash, _, why = loop.trouble()
    assert not crash
    assert "3e9 s" in why
    loop.close()
    assert port.calls == ["connect", "stop", "close"]


def test_loop_that_cannot_go_on_leaves_the_arm_stopped_and_says_why() -> None:
    broken, told = threading.Event(), threading.Event()

    def clock() -> float:
        if broken.is_set():
            raise OSError("no clock")
        return time.time()

    port = KinematicArm()
    loop = loop_of(port, lambda tick: None, clock=clock, on_crash=told.set)
    loop.start()
    wait(lambda: loop.status()[0].ticks > 3)
    broken.set()
    assert told.wait(10.0)
    assert "no clock" in loop.trouble()[0]
    assert "the control loop ended" in loop.status()[0].fault
    assert port.calls == ["connect", "stop", "close"]


def test_closing_is_not_undone_by_clearing_the_fault() -> None:
    port = KinematicArm()
    loop = loop_of(port, lambda tick: None)
    loop.start()
    wait(lambda: loop.status()[0].ticks > 3)
    loop.close()
    assert loop.clear_fault() is None
    assert "shuts down" in loop.status()[0].fault
