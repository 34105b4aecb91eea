# SPDX-License-Identifier: Apache-2.0
"""The motion law: brakes in time for any tick length, alone or in batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chatvla_control.motion_limits import MotionLimits, braking_speed, next_motion, stopping_point

from .chunks import SPEC

LIMITS = MotionLimits.of(SPEC)


@settings(max_examples=200, deadline=None)
@given(distance=st.floats(0.0, 10.0), acceleration=st.floats(0.01, 100.0), tick=st.floats(1e-6, 10.0))
def test_braking_speed_stops_within_the_distance(distance: float, acceleration: float, tick: float) -> None:
    speed = float(braking_speed(np.array(distance), np.array(acceleration), tick))
    assert speed * tick + speed**2 / (2 * acceleration) <= distance * (1 + 1e-9) + 1e-12


@settings(max_examples=100, deadline=None)
@given(
    ticks=st.lists(st.floats(1e-5, 0.5), min_size=1, max_size=40),
    reference=st.floats(-10.0, 10.0),
    speed=st.floats(-20.0, 20.0),
)
def test_the_joint_can_always_stop_before_its_limit(ticks: list[float], reference: float, speed: float) -> None:
    positions, velocities = np.array(SPEC.home), np.zeros(14)
    for tick in ticks:
        positions, velocities = next_motion(
            positions, velocities, np.full(14, reference), np.full(14, speed), tick, LIMITS
        )
        reach = positions + velocities * np.abs(velocities) / (2 * SPEC.acceleration)
        assert (reach <= SPEC.upper + 1e-9).all()
        assert (reach >= SPEC.lower - 1e-9).all()


def test_a_batch_moves_like_its_members() -> None:
    random = np.random.default_rng(0)
    home = np.array(SPEC.home)
    references = home + random.normal(0.0, 0.1, (5, 14))
    rest = np.zeros((5, 14))
    ticks = np.full((5, 1), 0.02)
    together = next_motion(np.repeat(home[None], 5, 0), rest, references, rest, ticks, LIMITS)
    for k in range(5):
        alone = next_motion(home, rest[0], references[k], rest[0], 0.02, LIMITS)
        assert np.array_equal(together[0][k], alone[0])
        assert np.array_equal(together[1][k], alone[1])


def test_stopping_point_is_where_braking_ends() -> None:
    velocities = np.linspace(-0.2, 0.2, 14)
    stop = stopping_point(np.array(SPEC.home), velocities, LIMITS)
    free = np.array([joint.unit == "rad" for joint in SPEC.joints])
    expected = np.array(SPEC.home) + np.sign(velocities) * velocities**2 / (2 * SPEC.acceleration)
    assert np.allclose(stop[free], expected[free])
