# SPDX-License-Identifier: Apache-2.0
"""An arm that stays away from its command is led back to where it is, and to no place where it cannot be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from chatvla_control.arm_controller import DriverPhase

from .bench import TICK_S, Bench
from .chunks import HOME, SPEC


@pytest.fixture
def bench() -> Bench:
    return Bench()


def pushed(bench: Bench, events: dict[int, Callable[[], object]], *, late: int = -1) -> NDArray[np.float64]:
    """Play a chunk whose left_joint1 is blocked at once; return how far the command is from it in the end [rad].

    `events`: what happens before a tick; `late`: a tick that comes four periods late.
    """
    blocked = bench.measured.copy()
    bench.send(actions=np.clip(HOME + np.linspace(0.0, 0.9, 50)[:, None] * np.eye(14)[0], SPEC.lower, SPEC.upper))
    for k in range(250):
        events.get(k, lambda: None)()
        elapsed_s = 4.0 * TICK_S if k == late else TICK_S
        command = bench.controller.step(now_s=bench.now_s, measured=bench.measured, elapsed_s=elapsed_s)
        bench.now_s += elapsed_s
        bench.measured = blocked if bench.measured is None or command is None else bench.measured
    assert bench.phase is DriverPhase.FAULT
    assert command is not None
    return np.abs(command.positions - blocked)


@pytest.mark.parametrize("moment", [30, 45, 58])
def test_stopped_arm_that_is_blocked_pushes_no_more_either(bench: Bench, moment: int) -> None:
    assert pushed(bench, {moment: lambda: bench.controller.stop("operator")}).max() < 0.05


def test_latched_arm_that_is_pushed_away_twice_gives_way_twice(bench: Bench) -> None:
    bench.controller.stop("operator")
    for place in (0.6, 1.2):
        pushed_to = HOME + place * np.eye(14)[0]
        for share in np.linspace(0.0, 1.0, 100):
            bench.measured = pushed_to + (share - 1.0) * 0.6 * np.eye(14)[0]
            bench.tick(follow=False)
        bench.tick(100, follow=False)
        command = bench.controller.step(now_s=bench.now_s, measured=bench.measured, elapsed_s=TICK_S)
        assert command is not None
        assert np.abs(command.positions - bench.measured)[0] < 0.41


def test_late_tick_does_not_end_the_way_back(bench: Bench) -> None:
    assert pushed(bench, {}, late=57).max() < 0.05


def test_lost_joint_states_do_not_end_the_way_back(bench: Bench) -> None:
    def lose() -> None:
        bench.measured = None  # type: ignore[assignment]

    assert pushed(bench, {57: lose}).max() < 0.05


@pytest.mark.parametrize(("reading", "word"), [(-1.2, "leapt"), (-12.5, "outside its limits")])
def test_arm_is_not_led_to_a_reading_that_no_arm_can_have(bench: Bench, reading: float, word: str) -> None:
    assert bench.send() is None
    bench.tick(10)
    for _ in range(100):
        wrong = np.where(np.arange(14) == 0, reading, bench.measured)
        command = bench.controller.step(now_s=bench.now_s, measured=wrong, elapsed_s=TICK_S)
        bench.measured = bench.measured if command is None else command.positions
        bench.now_s += TICK_S
    assert word in bench.controller.fault
    assert np.abs(bench.measured - HOME)[0] < 0.3
    bench.tick()
    held = bench.measured
    bench.tick(10)
    assert np.array_equal(bench.measured, held)
