# SPDX-License-Identifier: Apache-2.0
"""Normalisation: there and back, per method, strict when read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from chatvla_policy.processing.statistics import RobotStatistics, Statistics, StatisticsError

NAMES = ("shoulder", "elbow", "still")


@pytest.fixture
def samples() -> np.ndarray:
    data = np.random.default_rng(0).normal([1.0, -2.0, 0.5], [0.5, 2.0, 0.0], (1000, 3))
    data[0] = [50.0, 50.0, 0.5]
    return data


@pytest.mark.parametrize("method", ["min_max", "quantile", "mean_std"])
def test_denormalise_undoes_normalise(samples: np.ndarray, method: str) -> None:
    statistics = Statistics.from_samples(NAMES, samples, method)
    np.testing.assert_allclose(statistics.denormalise(statistics.normalise(samples)), samples, atol=1e-4)


def test_methods_scale_as_they_say(samples: np.ndarray) -> None:
    spans = {
        method: Statistics.from_samples(NAMES, samples, method).normalise(samples)[:, 0]
        for method in ("min_max", "quantile", "mean_std")
    }
    assert spans["min_max"].min() == pytest.approx(-1)
    assert spans["min_max"].max() == pytest.approx(1)
    assert np.mean(np.abs(spans["quantile"]) <= 1 + 1e-6) == pytest.approx(0.98, abs=0.005)
    assert spans["mean_std"].mean() == pytest.approx(0, abs=1e-4)
    assert spans["mean_std"].std() == pytest.approx(1, abs=1e-3)


def test_still_dimension_does_not_blow_up(samples: np.ndarray) -> None:
    values = Statistics.from_samples(NAMES, samples).normalise(samples + 1e-5)
    assert np.abs(values[:, 2]).max() < 0.1


def test_json_round_trip_keeps_values_and_hash(samples: np.ndarray) -> None:
    one = Statistics.from_samples(NAMES, samples)
    both = RobotStatistics(state=one, action=one)
    again = RobotStatistics.from_dict(json.loads(json.dumps(both.to_dict())))
    assert again == both
    assert again.sha256() == both.sha256()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "magic"}, "there are: min_max"),
        ({"mean": [0.0]}, "mean has 1 values for 3 names"),
        ({"std": [0.0, float("nan"), 0.0]}, "must be finite"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"count": "many"}, "expected int"),
    ],
)
def test_stored_statistics_that_do_not_fit_are_refused(samples: np.ndarray, change: dict, message: str) -> None:
    one = Statistics.from_samples(NAMES, samples)
    data = RobotStatistics(state=one, action=one).to_dict()
    data["state"] |= change
    with pytest.raises(StatisticsError, match=message):
        RobotStatistics.from_dict(data)


def test_vector_of_another_width_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(StatisticsError, match="vector has 2 values, statistics have 3: shoulder, elbow, still"):
        Statistics.from_samples(NAMES, samples).normalise(np.zeros(2))


def test_relative_targets_are_the_way_from_where_the_joints_are(samples: np.ndarray) -> None:
    absolute = Statistics.from_samples(NAMES, samples)
    both = RobotStatistics(state=absolute, action=absolute, relative=("shoulder",))
    state, chunk = samples[0], samples[:5]
    moved = both.normalise_actions(chunk, state)
    np.testing.assert_allclose(both.denormalise_actions(moved, state), chunk, atol=1e-5)
    np.testing.assert_allclose(moved[:, 1:], absolute.normalise(chunk)[:, 1:])
    # The same way from elsewhere: the relative joint ends elsewhere, the others where they did.
    further = both.denormalise_actions(moved, state + 0.5) - chunk
    np.testing.assert_allclose(further, np.tile([0.5, 0.0, 0.0], (5, 1)), atol=1e-5)
    batched = both.normalise_actions(np.stack([chunk, chunk]), np.stack([state, state + 0.5]))
    np.testing.assert_allclose(batched[0], moved, atol=1e-5)
    assert np.abs(batched[1, :, 0] - moved[:, 0]).min() > 0.01


def test_relative_joint_must_be_in_states_and_actions(samples: np.ndarray) -> None:
    one = Statistics.from_samples(NAMES, samples)
    with pytest.raises(StatisticsError, match="relative names 'wrist', which is not in both"):
        RobotStatistics(state=one, action=one, relative=("wrist",))
