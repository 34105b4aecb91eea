# SPDX-License-Identifier: Apache-2.0
"""The control loop outlives what hears its ticks, and says so when it cannot go on. The arm is a kinematic one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_controller import ArmController
from chatvla_control.arm_port import ArmPort, JointState
from chatvla_control.ros.control_loop import ControlLoop, Tick
from chatvla_control.ros.errors import ConversionError

from .chunks import HOME, SPEC, chunk, wave


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
