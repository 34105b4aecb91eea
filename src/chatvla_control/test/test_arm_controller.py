# SPDX-License-Identifier: Apache-2.0
"""The controller holds when in doubt, latches faults, and starts anew from the measured pose."""

from __future__ import annotations

import numpy as np
import pytest

from chatvla_control.arm_controller import ArmController, DriverPhase
from chatvla_control.chunk_check import ChunkFault, FaultCode

from .chunks import HOME, NOW_S, SPEC, chunk, wave

TICK_S = 0.02


class Bench:
    """A controller whose arm is where it was commanded, with a clock of its own."""

    def __init__(self) -> None:
        self.controller = ArmController(SPEC)
        self.now_s = NOW_S
        self.measured = HOME.copy()
        self.tick()

    def tick(self, count: int = 1, follow: bool = True) -> None:
        for _ in range(count):
            command = self.controller.step(now_s=self.now_s, measured=self.measured, elapsed_s=TICK_S)
            if command is not None and follow:
                self.measured = command.positions
            self.now_s += TICK_S

    def send(self, **changes: object) -> ChunkFault | None:
        times = {"stamp_s": self.now_s, "start_s": self.now_s, "valid_until_s": self.now_s + 1.2}
        return self.controller.accept(
            chunk(**{"actions": wave() - HOME + self.measured, **times, **changes}),
            now_s=self.now_s,
            measured=self.measured,
        )

    @property
    def phase(self) -> DriverPhase:
        return self.controller.status().phase


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_holds_before_the_first_chunk(bench: Bench) -> None:
    bench.tick(5)
    assert bench.phase is DriverPhase.HOLDING
    assert (bench.measured == HOME).all()


def test_chunk_taken_before_the_first_step_is_played() -> None:
    controller = ArmController(SPEC)
    assert controller.accept(chunk(), now_s=NOW_S, measured=HOME) is None
    controller.step(now_s=NOW_S, measured=HOME)
    command = controller.step(now_s=NOW_S + TICK_S, measured=HOME)
    assert command is not None
    assert command.phase.value == "playing"


def test_chunk_is_refused_while_a_measured_joint_is_nan() -> None:
    fault = ArmController(SPEC).accept(chunk(), now_s=NOW_S, measured=np.where(np.arange(14) == 6, np.nan, HOME))
    assert fault is not None
    assert fault.code is FaultCode.NO_STATE


def test_plays_an_accepted_chunk_then_settles_then_holds(bench: Bench) -> None:
    assert bench.send() is None
    bench.tick(20)
    assert bench.phase is DriverPhase.PLAYING
    bench.tick(34)
    assert bench.phase is DriverPhase.SETTLING
    bench.tick(20)
    assert bench.phase is DriverPhase.HOLDING
    assert bench.controller.status().accepted == 1


def test_refused_chunk_is_counted_and_the_plan_before_it_goes_on(bench: Bench) -> None:
    assert bench.send() is None
    bench.tick(5)
    fault = bench.send(robot="franka")
    bench.tick(5)
    assert fault is not None
    assert bench.phase is DriverPhase.PLAYING
    assert bench.controller.status().refused == {FaultCode.WRONG_ROBOT.value: 1}
    assert "franka" in bench.controller.status().last_refusal


def test_unreadable_chunk_is_counted(bench: Bench) -> None:
    bench.controller.refuse(ChunkFault(code=FaultCode.MALFORMED, message="text"))
    assert bench.controller.status().refused == {"malformed": 1}


def test_stop_brakes_latches_and_refuses_until_cleared(bench: Bench) -> None:
    bench.send()
    bench.tick(10)
    moving = bench.measured
    bench.controller.stop("operator")
    bench.tick(20)
    assert bench.phase is DriverPhase.FAULT
    assert 0 < np.abs(bench.measured - moving).max() < 0.05
    held = bench.measured
    bench.tick(10)
    assert (bench.measured == held).all()
    fault = bench.send()
    assert fault is not None
    assert fault.code is FaultCode.DRIVER_FAULT
    assert bench.controller.clear_fault() == "stopped: operator"
    bench.tick()
    assert bench.phase is DriverPhase.HOLDING
    assert bench.send() is None


def test_clearing_without_a_fault_says_so(bench: Bench) -> None:
    assert bench.controller.clear_fault() is None


def test_first_fault_is_kept(bench: Bench) -> None:
    bench.controller.latch("first")
    bench.controller.latch("second")
    assert bench.controller.fault == "first"


def test_lost_joint_states_command_nothing_and_start_anew(bench: Bench) -> None:
    bench.send()
    bench.tick(10)
    assert bench.controller.step(now_s=bench.now_s, measured=None, elapsed_s=TICK_S) is None
    assert bench.phase is DriverPhase.NO_STATE
    refused = bench.controller.accept(chunk(), now_s=bench.now_s, measured=None)
    assert refused is not None
    assert refused.code is FaultCode.NO_STATE
    elsewhere = HOME + 0.3
    elsewhere[[6, 13]] = HOME[[6, 13]]
    command = bench.controller.step(now_s=bench.now_s + TICK_S, measured=elsewhere, elapsed_s=TICK_S)
    assert command is not None
    assert np.allclose(command.positions, elsewhere)
    assert bench.phase is DriverPhase.HOLDING


def test_measured_nan_latches(bench: Bench) -> None:
    bench.measured = np.where(np.arange(14) == 4, np.nan, HOME)
    bench.tick()
    assert bench.phase is DriverPhase.FAULT
    assert "left_joint5" in bench.controller.fault


def test_grippers_keep_their_command_over_a_cleared_fault(bench: Bench) -> None:
    shut = HOME.copy()
    shut[6] = 0.02
    bench.measured = shut
    bench.controller = ArmController(SPEC)
    bench.tick()
    bench.measured = shut + 0.03 * np.eye(14)[6]
    bench.controller.stop("operator")
    bench.controller.clear_fault()
    bench.tick()
    assert bench.measured[6] == pytest.approx(0.02)


def test_lasting_tracking_error_latches_and_stops_pushing(bench: Bench) -> None:
    blocked = bench.measured.copy()
    bench.send(actions=np.clip(HOME + np.linspace(0.0, 0.9, 50)[:, None] * np.eye(14)[0], SPEC.lower, SPEC.upper))
    bench.tick(80, follow=False)
    assert bench.phase is DriverPhase.FAULT
    assert "left_joint1" in bench.controller.fault
    bench.tick(100, follow=False)
    command = bench.controller.step(now_s=bench.now_s, measured=blocked, elapsed_s=TICK_S)
    assert command is not None
    assert np.abs(command.positions - blocked).max() < 0.05


def test_arm_found_far_outside_its_limits_is_not_moved(bench: Bench) -> None:
    controller = ArmController(SPEC)
    controller.step(now_s=NOW_S, measured=HOME + 3.0 * np.eye(14)[1], elapsed_s=TICK_S)
    assert controller.status().phase is DriverPhase.FAULT
    assert "left_joint2" in controller.fault


def test_late_ticks_are_counted(bench: Bench) -> None:
    before = bench.controller.status().deadline_misses
    bench.controller.step(now_s=bench.now_s, measured=HOME, elapsed_s=0.05)
    assert bench.controller.status().deadline_misses == before + 1


def test_clock_of_the_caller_is_enough_without_a_steady_one() -> None:
    controller = ArmController(SPEC)
    controller.step(now_s=NOW_S, measured=HOME)
    assert controller.accept(chunk(), now_s=NOW_S, measured=HOME) is None
    for k in range(1, 40):
        command = controller.step(now_s=NOW_S + k * TICK_S, measured=wave()[k])
        assert command is not None
        assert np.abs(command.positions - wave()[k]).max() < 1e-9
