# SPDX-License-Identifier: Apache-2.0
"""The controller holds when in doubt, latches faults, never leaps, and starts anew from the measured pose."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from chatvla_control.arm_controller import ArmController, DriverPhase
from chatvla_control.arm_port import JointState, hold_pose
from chatvla_control.chunk_check import ChunkFault, FaultCode
from chatvla_control.chunk_player import Command

from .bench import TICK_S, Bench
from .chunks import HOME, NOW_S, SPEC, chunk, swing, wave


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


def swung(bench: Bench) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bring left_joint1 to 2 rad/s, the measured pose 60 ms behind; return commanded position and speed."""
    assert bench.send(actions=swing(), valid_until_s=bench.now_s + 3.0) is None
    commanded = [HOME] * 3
    for _ in range(35):
        bench.measured = commanded[-3]
        command = bench.controller.step(now_s=bench.now_s, measured=bench.measured, elapsed_s=TICK_S)
        assert command is not None
        commanded.append(command.positions)
        bench.now_s += TICK_S
    assert command.velocities[0] == pytest.approx(2.0)
    return command.positions, command.velocities


def brakes(bench: Bench, measured: list[NDArray[np.float64] | None]) -> Command | None:
    """Step from `swung` on with these measured poses; every command goes on from the last one within the limits."""
    positions, speeds = swung(bench)
    bench.now_s -= TICK_S
    command = None
    for pose in measured:
        bench.now_s += TICK_S
        command = bench.controller.step(now_s=bench.now_s, measured=pose, elapsed_s=TICK_S)
        if command is not None:
            assert np.allclose(command.positions, positions + TICK_S * command.velocities)
            assert (np.abs(command.velocities - speeds) <= SPEC.acceleration * TICK_S + 1e-9).all()
            positions, speeds = command.positions, command.velocities
    return command


def test_lost_joint_states_brake_the_arm_and_then_command_nothing(bench: Bench) -> None:
    assert brakes(bench, [None] * 4) is not None
    assert bench.phase is DriverPhase.NO_STATE
    refused = bench.controller.accept(chunk(), now_s=bench.now_s, measured=None)
    assert refused is not None
    assert refused.code is FaultCode.NO_STATE
    for _ in range(20):
        command = bench.controller.step(now_s=bench.now_s, measured=None, elapsed_s=TICK_S)
    assert command is None


def test_joint_states_that_come_back_while_the_arm_brakes_change_nothing(bench: Bench) -> None:
    command = brakes(bench, [None, None, HOME + 0.9 * np.eye(14)[0], HOME + 0.9 * np.eye(14)[0]])
    assert command is not None
    assert bench.phase is DriverPhase.HOLDING


def test_one_measured_nan_in_motion_latches_and_brakes(bench: Bench) -> None:
    lagging = HOME + 0.9 * np.eye(14)[0]
    assert brakes(bench, [np.where(np.arange(14) == 6, np.nan, lagging), lagging, lagging]) is not None
    assert "left_gripper" in bench.controller.fault


def test_clearing_a_stop_in_motion_brakes_first(bench: Bench) -> None:
    swung(bench)
    bench.controller.stop("operator")
    assert bench.controller.clear_fault() == "stopped: operator"
    fastest = 2.0
    for _ in range(20):
        command = bench.controller.step(now_s=bench.now_s, measured=bench.measured, elapsed_s=TICK_S)
        assert command is not None
        assert fastest - SPEC.acceleration[0] * TICK_S - 1e-9 <= command.velocities[0] <= fastest
        fastest = command.velocities[0]
        bench.now_s += TICK_S
    assert fastest == 0.0


def test_commands_that_do_not_reach_the_arm_start_anew_where_it_is(bench: Bench) -> None:
    positions, _ = swung(bench)
    bench.controller.lose()
    command = bench.controller.step(now_s=bench.now_s, measured=bench.measured, elapsed_s=TICK_S)
    assert command is not None
    assert command.positions[0] == pytest.approx(bench.measured[0])
    assert positions[0] - bench.measured[0] > 0.05


def test_control_starts_anew_from_the_measured_pose(bench: Bench) -> None:
    bench.tick(5)
    assert bench.controller.step(now_s=bench.now_s, measured=None, elapsed_s=TICK_S) is None
    assert bench.phase is DriverPhase.NO_STATE
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


def test_arm_found_far_outside_its_limits_is_not_commanded_until_cleared(bench: Bench) -> None:
    controller = ArmController(SPEC)
    outside = HOME + 3.0 * np.eye(14)[1]
    for pose in (outside, outside, HOME):
        assert controller.step(now_s=NOW_S, measured=pose, elapsed_s=TICK_S) is None
        assert controller.status().phase is DriverPhase.FAULT
        assert "left_joint2" in controller.fault
    controller.clear_fault()
    assert controller.step(now_s=NOW_S, measured=outside, elapsed_s=TICK_S) is None
    controller.clear_fault()
    command = controller.step(now_s=NOW_S, measured=HOME, elapsed_s=TICK_S)
    assert command is not None
    assert np.allclose(command.positions, HOME)


@pytest.mark.parametrize(
    ("late_s", "turned_rad", "held_rad"),
    [(0.0, 0.0, 0.0), (0.0, 0.05, 0.0), (0.0, 0.15, None), (0.0, np.nan, None), (0.2, 0.0, None), (-0.2, 0.0, None)],
    ids=["fresh", "a little outside", "far outside", "nan", "old", "from the future"],
)
def test_measured_pose_is_held_only_where_that_moves_no_arm(
    late_s: float, turned_rad: float, held_rad: float | None
) -> None:
    measured = np.where(np.arange(14) == 1, SPEC.upper[1] + turned_rad, HOME)
    unknown = np.full(14, np.nan)
    state = JointState(positions=measured, velocities=unknown, efforts=unknown, stamp_s=NOW_S - late_s)
    hold = hold_pose(SPEC, state, NOW_S)
    assert (hold is None) is (held_rad is None)
    assert hold is None or (hold[1] == SPEC.upper[1] and np.array_equal(hold[2:6], HOME[2:6]) and hold.shape == (12,))


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
