# SPDX-License-Identifier: Apache-2.0
"""Poses are played on straight lines and arcs; the tool's limits hold at every tick, whatever is asked."""

from __future__ import annotations

import time

import numpy as np
import pytest

from chatvla_control.arm_controller import ArmController, DriverPhase
from chatvla_control.campaign import broken_promise, broken_tool_promise
from chatvla_control.cartesian import arm_models, cartesian_rows
from chatvla_control.cartesian_guard import margin_names, margins
from chatvla_control.chunk_player import ChunkPlayer, Command
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_control.robots import CARTESIAN
from chatvla_control.rotations import matrix_from_six, rotation_angle, slerp

from .poses import FRANKA, HOME, NOW_S, PERIOD_S, arc_rows, pose_chunk, still_rows

TICK_S = 0.01
ARMS = arm_models(FRANKA)


def played(chunk: ActionChunk, ticks: int, spec: RobotSpec = FRANKA, tick_s: float = TICK_S) -> list[Command]:
    """Commands of a player that starts at home, each within every limit."""
    player = ChunkPlayer(spec, rate_hz=1.0 / tick_s)
    player.reset(np.array(spec.home), NOW_S)
    player.load(chunk)
    commands: list[Command] = []
    previous = Command(positions=player.positions, velocities=player.velocities, phase=None, tick_s=0.0)  # type: ignore[arg-type]
    for number in range(1, ticks + 1):
        command = player.step(NOW_S + number * tick_s)
        assert broken_promise(spec, previous, command) == ""
        assert broken_tool_promise(arm_models(spec), previous, command) == ""
        commands.append(command)
        previous = command
    return commands


def tools(commands: list[Command], spec: RobotSpec = FRANKA) -> np.ndarray:
    return cartesian_rows(spec, np.array([command.positions for command in commands]))


@pytest.mark.parametrize("robot", sorted(CARTESIAN))
def test_follows_a_pose_chunk_between_its_rows(robot: str) -> None:
    spec = robot_spec(robot)
    rows = arc_rows(spec, reach_m=0.03)
    way = tools(played(pose_chunk(rows, spec), 200, spec), spec)
    times = (np.arange(200) + 1) * TICK_S / PERIOD_S
    for column in range(rows.shape[1]):
        if column % 10 < 3:
            wanted = np.interp(times, np.arange(len(rows)), rows[:, column])
            assert np.abs(way[:, column] - wanted).max() < 0.002


def test_turns_along_the_slerp_between_two_rows() -> None:
    rows = still_rows(steps=2)
    first = matrix_from_six(rows[0, 3:9])
    second = first @ np.array([[1, 0, 0], [0, np.cos(0.8), -np.sin(0.8)], [0, np.sin(0.8), np.cos(0.8)]])
    rows[1, 3:9] = [*second[:, 0], *second[:, 1]]
    way = tools(played(pose_chunk(rows, step_period_s=2.0, valid_until_s=NOW_S + 3.0), 200))
    for tick in (60, 100, 150, 199):
        share = (tick + 1) * TICK_S / 2.0
        assert float(rotation_angle(matrix_from_six(way[tick, 3:9]), slerp(first, second, share))) < 0.01
        assert way[tick, :3] == pytest.approx(rows[0, :3], abs=0.002)


def test_target_under_the_table_slides_along_it() -> None:
    rows = still_rows(steps=40)
    share = np.linspace(0.0, 1.0, 40)
    rows[:, 2] -= 0.6 * share
    rows[:, 1] += 0.2 * share
    way = tools(played(pose_chunk(rows), 320))
    limits = ARMS[0].cartesian
    assert (way[:, 2] - limits.finger_reach_m).min() >= limits.table_z_m + limits.clearance_m
    assert way[-1, 2] - limits.finger_reach_m < limits.table_z_m + limits.clearance_m + 0.01
    assert way[-1, 1] == pytest.approx(0.2, abs=0.005)


def test_joint_chunk_that_dives_into_the_table_stops_above_it() -> None:
    down = HOME.copy()
    down[[1, 3]] += (1.2, -0.2)
    rows = np.linspace(HOME, down, 30)
    commands = played(pose_chunk(rows, mode=ActionMode.JOINT_POSITION), 300)
    room = margins(ARMS[0], np.array([command.positions[:7] for command in commands]))[0]
    assert room.min() >= 0.0
    assert room[-1].min() < 0.05
    assert np.abs(commands[-1].velocities).max() < 1e-3


def test_tool_speed_is_bounded_where_joint_speeds_are_not() -> None:
    stretched = HOME.copy()
    stretched[[0, 1, 3]] = (-1.0, 0.5, -1.6)
    target = stretched.copy()
    target[0] = 1.0
    player = ChunkPlayer(FRANKA, rate_hz=100.0)
    player.reset(stretched, NOW_S)
    player.load(pose_chunk(np.repeat(target[None], 31, 0), mode=ActionMode.JOINT_POSITION))
    before, fastest = stretched, 0.0
    for number in range(1, 200):
        command = player.step(NOW_S + number * TICK_S)
        moved = np.diff(cartesian_rows(FRANKA, np.stack([before, command.positions]))[:, :3], axis=0)
        before, fastest = command.positions, max(fastest, float(np.linalg.norm(moved)) / TICK_S)
    assert 0.8 < fastest <= 1.0


def test_rest_costs_no_kinematics() -> None:
    player = ChunkPlayer(FRANKA)
    player.reset(HOME, NOW_S)
    begun_s = time.process_time()
    for number in range(1, 201):
        player.step(NOW_S + number * TICK_S)
    assert (time.process_time() - begun_s) / 200 < 0.002


def test_a_guarded_tick_fits_into_10_ms_by_far() -> None:
    player = ChunkPlayer(FRANKA, rate_hz=100.0)
    player.reset(HOME, NOW_S)
    player.load(pose_chunk())
    begun_s = time.process_time()
    for number in range(1, 201):
        player.step(NOW_S + number * TICK_S)
    assert (time.process_time() - begun_s) / 200 < 0.005


@pytest.mark.parametrize(("column", "value"), [(1, 0.9), (3, -1.0), (0, 0.1)])
def test_campaign_notices_a_tool_out_of_its_limits(column: int, value: float) -> None:
    player = ChunkPlayer(FRANKA)
    player.reset(HOME, NOW_S)
    previous = player.step(NOW_S + TICK_S)
    moved = previous.positions.copy()
    moved[column] += value
    broken = Command(positions=moved, velocities=previous.velocities, phase=previous.phase, tick_s=TICK_S)
    assert broken_tool_promise(ARMS, previous, broken)
    assert len(margin_names(ARMS[0])) == margins(ARMS[0], moved[None, :7])[0].shape[1]


@pytest.mark.parametrize(("inside_m", "allowed"), [(0.001, True), (0.01, False)])
def test_campaign_lets_an_arm_come_back_by_a_way_that_leaves_again_a_little(inside_m: float, allowed: bool) -> None:
    """Until it is inside by the guard's margin, no farther out than before counts; from there on, not at all."""
    player = ChunkPlayer(FRANKA)
    player.reset(HOME, NOW_S)
    first = player.step(NOW_S + TICK_S)
    column = margin_names(ARMS[0]).index("lower x")

    def out_to(room_m: float) -> Command:
        """Return the command, leaning back, whose tool is `room_m` inside the lower x limit."""
        low, high = 0.0, 0.8
        for _ in range(60):
            middle = 0.5 * (low + high)
            positions = first.positions.copy()
            positions[1] -= middle
            room = margins(ARMS[0], positions[None, :7])[0][0, column]
            low, high = (middle, high) if room > room_m else (low, middle)
        return Command(positions=positions, velocities=first.velocities, phase=first.phase, tick_s=1.0)

    farthest: dict[str, np.ndarray] = {}
    outside, inside, again = out_to(-0.02), out_to(inside_m), out_to(-0.0005)
    assert broken_tool_promise(ARMS, outside, inside, farthest) == ""
    assert (broken_tool_promise(ARMS, inside, again, farthest) == "") is allowed


@pytest.mark.parametrize("robot", sorted(CARTESIAN))
def test_controller_plays_poses_at_a_rate_of_its_own(robot: str) -> None:
    spec = robot_spec(robot)
    controller = ArmController(spec, rate_hz=100.0)
    measured = np.array(spec.home)
    controller.step(now_s=NOW_S, measured=measured, elapsed_s=TICK_S)
    rows = arc_rows(spec, reach_m=0.03)
    assert controller.accept(pose_chunk(rows, spec), now_s=NOW_S, measured=measured) is None
    for number in range(1, 101):
        command = controller.step(now_s=NOW_S + number * TICK_S, measured=measured, elapsed_s=TICK_S)
        assert command is not None
        measured = command.positions
    status = controller.status()
    assert status.phase is DriverPhase.PLAYING
    assert status.deadline_misses == 0
    assert cartesian_rows(spec, measured[None])[0, :3] == pytest.approx(rows[15, :3], abs=0.003)
