# SPDX-License-Identifier: Apache-2.0
"""The player follows a feasible chunk, holds when there is none, and never leaves the limits."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatvla_control.campaign import BrokenPromiseError, broken_promise, run_campaign
from chatvla_control.chunk_player import ChunkPlayer, Command, PlayPhase
from chatvla_control.contracts import ActionMode
from chatvla_control.robot_spec import robot_names, robot_spec
from chatvla_control.robots import CARTESIAN

from .chunks import HOME, NOW_S, SPEC, chunk, wave

TICK_S = 0.02


def started(positions: np.ndarray = HOME) -> ChunkPlayer:
    player = ChunkPlayer(SPEC)
    player.reset(positions, NOW_S)
    return player


def played(player: ChunkPlayer, ticks: int, first: int = 1) -> list[Command]:
    return [player.step(NOW_S + k * TICK_S) for k in range(first, first + ticks)]


def test_follows_a_feasible_chunk_without_lag() -> None:
    player = started()
    rows = wave(amplitude=0.2)
    player.load(chunk(rows))
    commands = played(player, 49)
    assert max(np.abs(c.positions - rows[k]).max() for k, c in enumerate(commands, 1)) < 1e-9
    assert {c.phase for c in commands} == {PlayPhase.PLAYING}


def test_follows_a_learned_chunk_with_noise_within_a_tick() -> None:
    player = started()
    rows = wave(amplitude=0.2)
    noisy = np.clip(rows + np.random.default_rng(1).normal(0.0, 5e-4, rows.shape), SPEC.lower, SPEC.upper)
    player.load(chunk(noisy))
    commands = played(player, 49)
    fastest = np.abs(np.diff(rows, axis=0)).max()
    assert max(np.abs(c.positions - noisy[k]).max() for k, c in enumerate(commands, 1)) < fastest


def test_reaches_a_step_without_overshoot() -> None:
    player = started()
    target = HOME + 0.3 * np.eye(14)[0]
    player.load(chunk(np.repeat(target[None], 50, axis=0)))
    path = np.array([c.positions[0] for c in played(player, 60)])
    assert (np.diff(path) >= -1e-12).all()
    assert path.max() <= target[0] + 1e-9
    assert path[-1] == pytest.approx(target[0], abs=1e-4)


def test_reference_is_linear_between_rows() -> None:
    player = started()
    rows = HOME + np.arange(20)[:, None] * 0.01 * np.eye(14)[0]
    player.load(chunk(rows, step_period_s=0.1, valid_until_s=NOW_S + 2.0))
    commands = played(player, 60)
    assert commands[44].positions[0] == pytest.approx(HOME[0] + 0.1 * 45 * TICK_S, abs=1e-4)


def test_drops_rows_whose_time_has_passed() -> None:
    player = started(wave()[25])
    player.load(chunk(start_s=NOW_S - 0.5, valid_until_s=NOW_S + 1.0))
    commands = played(player, 3)
    assert np.abs(commands[-1].positions - wave()[28]).max() < 0.005


def test_early_chunk_waits_for_its_start_while_the_present_one_goes_on() -> None:
    player = started()
    rows = wave()
    player.load(chunk(rows))
    played(player, 10)
    player.load(chunk(np.repeat(rows[30][None], 20, axis=0), start_s=NOW_S + 0.6, valid_until_s=NOW_S + 2.0))
    commands = played(player, 19, first=11)
    assert np.abs(commands[-1].positions - rows[29]).max() < 1e-9
    assert np.abs(played(player, 30, first=30)[-1].positions - rows[30]).max() < 1e-3


def test_blend_keeps_speed_steps_within_the_acceleration_limit() -> None:
    player = started()
    player.load(chunk(wave(amplitude=0.2)))
    before = played(player, 20)[-1]
    other = wave(amplitude=0.2) + 0.05
    player.load(chunk(np.clip(other, SPEC.lower, SPEC.upper)))
    speeds = np.array([before.velocities, *(c.velocities for c in played(player, 25, first=21))])
    assert (np.abs(np.diff(speeds, axis=0)) <= SPEC.acceleration * TICK_S + 1e-9).all()


def test_same_plan_sent_again_changes_nothing() -> None:
    once, often = started(), started()
    rows = wave()
    once.load(chunk(rows))
    for k in range(1, 45):
        often.load(chunk(rows))
        assert np.allclose(once.step(NOW_S + k * TICK_S).positions, often.step(NOW_S + k * TICK_S).positions, atol=1e-9)


def test_holds_without_a_chunk() -> None:
    command = played(started(), 5)[-1]
    assert command.phase is PlayPhase.HOLDING
    assert (command.positions == HOME).all()


def test_brakes_and_holds_when_validity_ends() -> None:
    player = started()
    player.load(chunk(wave(), valid_until_s=NOW_S + 0.25))
    commands = played(player, 60)
    assert commands[12].phase is PlayPhase.HOLDING
    assert not commands[-1].velocities.any() or np.abs(commands[-1].velocities).max() < 1e-6
    longest = np.abs(commands[11].velocities) ** 2 / (2 * SPEC.acceleration)
    assert (np.abs(commands[-1].positions - commands[11].positions) <= longest + 1e-9).all()


def test_settles_at_the_last_row_when_the_rows_end() -> None:
    player = started()
    rows = wave(steps=51)
    player.load(chunk(rows, valid_until_s=NOW_S + 5.0))
    commands = played(player, 80)
    assert commands[60].phase is PlayPhase.SETTLING
    assert np.abs(commands[-1].positions - rows[-1]).max() < 1e-3


def test_never_turns_back_when_the_rows_end_in_motion() -> None:
    player = started()
    rows = HOME + np.arange(20)[:, None] * 0.02 * np.eye(14)[0]
    player.load(chunk(rows))
    path = np.array([c.positions[0] for c in played(player, 60)])
    assert (np.diff(path) >= -1e-9).all()
    assert path[-1] - rows[-1, 0] <= 1.0**2 / (2 * 20.0) + 0.02


def test_clock_that_steps_back_drops_the_chunk() -> None:
    player = started()
    player.load(chunk())
    played(player, 10)
    assert player.step(NOW_S - 3600.0, TICK_S).phase is PlayPhase.HOLDING
    assert player.step(NOW_S + 0.3, TICK_S).phase is PlayPhase.HOLDING


def test_small_clock_correction_keeps_the_chunk() -> None:
    player = started()
    player.load(chunk())
    played(player, 10)
    assert player.step(NOW_S + 0.19, TICK_S).phase is PlayPhase.PLAYING


def test_repeated_time_repeats_the_command() -> None:
    player = started()
    player.load(chunk())
    first = played(player, 10)[-1]
    again = player.step(NOW_S + 10 * TICK_S)
    assert (again.positions == first.positions).all()


def test_long_pause_only_brakes() -> None:
    player = started()
    player.load(chunk(wave(amplitude=0.3)))
    before = played(player, 12)[-1]
    after = player.step(NOW_S + 12 * TICK_S + 0.3)
    assert (np.abs(after.positions - before.positions) <= before.velocities**2 / (4 * SPEC.acceleration) + 1e-9).all()


def test_clock_that_is_not_a_number_holds() -> None:
    player = started()
    player.load(chunk())
    played(player, 10)
    commands = [player.step(math.nan) for _ in range(30)]
    assert commands[-1].phase is PlayPhase.HOLDING
    assert np.abs(commands[-1].velocities).max() < 1e-6


def test_hold_at_goes_there_within_the_limits() -> None:
    player = started()
    goal = HOME + 0.2 * np.eye(14)[2]
    player.hold_at(goal)
    assert np.abs(played(player, 60)[-1].positions - goal).max() < 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": ActionMode.CARTESIAN_POSE},
        {"actions": np.zeros((0, 14))},
        {"actions": np.zeros((3, 13))},
        {"actions": np.full((3, 14), np.nan)},
        {"step_period_s": 0.0},
        {"start_s": math.nan},
        {"valid_until_s": math.inf},
    ],
)
def test_unplayable_chunk_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"chunk|player"):
        started().load(chunk(**changes))


@pytest.mark.parametrize("positions", [np.zeros(13), np.full(14, np.nan)])
def test_unusable_start_is_refused(positions: np.ndarray) -> None:
    with pytest.raises(ValueError, match="start positions"):
        started().reset(positions, NOW_S)


@pytest.mark.parametrize("robot", robot_names())
@pytest.mark.parametrize("seed", [1, 2])
def test_campaign_of_random_chunks_and_clocks_breaks_no_promise(robot: str, seed: int) -> None:
    report = run_campaign(robot_spec(robot), chunks=300, seed=seed)
    assert report.accepted > 5
    assert report.ticks > 1500
    assert report.guarded_ticks > 100 or robot not in CARTESIAN


@pytest.mark.parametrize("field", ["positions", "velocities"])
@pytest.mark.parametrize("value", [np.nan, 1e3, 0.5])
def test_campaign_notices_a_broken_promise(field: str, value: float) -> None:
    player = started()
    previous = player.step(NOW_S + TICK_S)
    command = player.step(NOW_S + 2 * TICK_S)
    assert broken_promise(SPEC, previous, command) == ""
    broken = dataclasses.replace(command, **{field: getattr(command, field) + value * np.eye(14)[0]})
    assert broken_promise(SPEC, previous, broken)


def test_campaign_names_the_seed_to_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    true_step = ChunkPlayer.step

    def too_fast(self: ChunkPlayer, now_s: float, elapsed_s: float | None = None) -> Command:
        command = true_step(self, now_s, elapsed_s)
        return dataclasses.replace(command, velocities=command.velocities + 10.0)

    monkeypatch.setattr(ChunkPlayer, "step", too_fast)
    with pytest.raises(BrokenPromiseError, match="seed 5, chunk 0"):
        run_campaign(SPEC, chunks=5, seed=5)


numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
ticks = st.one_of(st.floats(0.0, 0.1), st.sampled_from([0.0, 1e-9, 0.02, 0.02, 0.02, 0.5, 1e5]))


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(numbers, min_size=1, max_size=8),
    amplitude=st.floats(0.0, 4.0),
    start=st.floats(-0.2, 1.2),
    delay=st.floats(-1.0, 1.0),
    period=st.floats(1e-6, 1.0),
    valid=st.floats(-1.0, 5.0),
    clock=st.lists(st.tuples(ticks, st.floats(-1.0, 1.0), st.booleans()), min_size=1, max_size=30),
)
def test_limits_hold_for_any_chunk_delay_and_clock(
    values: list[float],
    amplitude: float,
    start: float,
    delay: float,
    period: float,
    valid: float,
    clock: list[tuple[float, float, bool]],
) -> None:
    player = started(SPEC.lower + start * (SPEC.upper - SPEC.lower))
    rows = np.outer(np.array(values), np.ones(14))
    rows = np.where(np.arange(14) % 2 == 0, rows, HOME + amplitude * np.sin(rows * 1e-3))
    player.load(chunk(rows, start_s=NOW_S + delay, step_period_s=period, valid_until_s=NOW_S + delay + valid))
    now_s = NOW_S
    previous = player.step(now_s)
    for tick_s, jump_s, steady in clock:
        now_s += tick_s + (jump_s if steady else 0.0)
        command = player.step(now_s, tick_s if steady else None)
        assert broken_promise(SPEC, previous, command) == ""
        previous = command


def test_a_step_takes_less_than_a_control_period_by_far() -> None:
    player = started()
    player.load(chunk(wave(steps=2000), valid_until_s=NOW_S + 60.0))
    begun_s = time.perf_counter()
    for k in range(1000):
        player.step(NOW_S + k * TICK_S)
    assert (time.perf_counter() - begun_s) / 1000 < 0.002
