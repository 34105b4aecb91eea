# SPDX-License-Identifier: Apache-2.0
"""Images and joints are brought to one time; what cannot be trusted is named."""

from __future__ import annotations

import re

import numpy as np
import pytest

from chatvla_policy.runtime.observation_sync import InputKind, ObservationSync, SyncSettings

from .swinging import SPEC, joint_state, picture


def ready(now_s: float = 10.0, **settings: float) -> ObservationSync:
    sync = ObservationSync(SPEC, ["top"], settings=SyncSettings(**settings))
    sync.add_joints(joint_state(now_s))
    sync.add_image("top", picture(), now_s)
    return sync


def test_observation_is_of_one_time() -> None:
    sync = ready()
    observation = sync.observe("go", 10.02)
    assert observation is not None
    assert (observation.stamp_s, observation.instruction) == (10.0, "go")
    assert observation.image_stamps_s == {"top": 10.0}


def test_joints_are_interpolated_to_the_image() -> None:
    sync = ObservationSync(SPEC, ["top"])
    home = np.array(SPEC.home)
    sync.add_joints(joint_state(10.0, home))
    sync.add_joints(joint_state(10.02, home + 0.02))
    sync.add_image("top", picture(), 10.005)
    observation = sync.observe("go", 10.03)
    assert observation is not None
    np.testing.assert_allclose(observation.joint_positions, home + 0.005)


def test_joints_that_lag_are_carried_on_by_their_speed() -> None:
    sync = ObservationSync(SPEC, ["top"])
    home = 0.5 * (SPEC.lower + SPEC.upper)
    sync.add_joints(joint_state(10.0, home, np.full(SPEC.width, 0.1)))
    sync.add_image("top", picture(), 10.01)
    observation = sync.observe("go", 10.02)
    assert observation is not None
    np.testing.assert_allclose(observation.joint_positions, home + 0.001)


def test_two_views_further_apart_than_the_slop_are_not_taken_together() -> None:
    sync = ObservationSync(SPEC, ["top", "side"], settings=SyncSettings(slop_s=0.05))
    sync.add_joints(joint_state(10.0))
    sync.add_image("top", picture(), 10.0)
    sync.add_image("side", picture(), 10.08)
    assert sync.observe("go", 10.09) is None
    sync.add_joints(joint_state(10.1))
    sync.add_image("top", picture(), 10.1)
    observation = sync.observe("go", 10.11)
    assert observation is not None
    assert observation.stamp_s == 10.08


def fed(late_s: float, *, phase_s: float = 0.0, rate_hz: float = 30.0, joints_late_s: float = 0.0) -> ObservationSync:
    """Two views, the second one's images stamped `phase_s` after the first's and arriving `late_s` later, for 3 s."""
    sync = ObservationSync(SPEC, ["top", "side"])
    arrivals = [(10.0 + k / rate_hz, "top", 10.0 + k / rate_hz) for k in range(round(3 * rate_hz))]
    arrivals += [(time_s + phase_s + late_s, "side", time_s + phase_s) for time_s, *_ in arrivals]
    arrivals += [(10.0 + 0.02 * k, "joints", 10.0 + 0.02 * k - joints_late_s) for k in range(150)]
    for now_s, what, stamp_s in sorted(arrivals):
        if what == "joints":
            sync.add_joints(joint_state(stamp_s))
        else:
            sync.add_image(what, picture(), stamp_s)
        if now_s > 10.3 and sync.observe("go", now_s) is not None:
            return sync
    return sync


def test_view_that_arrives_later_is_taken_with_an_older_image_of_the_other() -> None:
    sync = fed(0.16)
    now_s = sync.newest_stamp_s() + 0.17
    observation = sync.observe("go", now_s)
    assert observation is not None
    assert np.ptp(list(observation.image_stamps_s.values())) < 1e-6


@pytest.mark.parametrize(
    ("stated", "kind", "sentence"),
    [
        (
            {"late_s": 0.0, "phase_s": 0.1, "rate_hz": 5.0},
            InputKind.CAMERA,
            r"no image within 0.05 s .*\(0.100 s apart",
        ),
        (
            {"late_s": 0.0, "joints_late_s": 0.3},
            InputKind.JOINTS,
            "joint_states has nothing within 0.05 s of the newest",
        ),
    ],
)
def test_inputs_that_never_fit_together_are_a_fault_once_that_has_lasted(
    stated, kind: InputKind, sentence: str
) -> None:
    sync = fed(**stated)
    fault = sync.fault(13.0)
    assert fault is not None
    assert fault.kind is kind
    assert re.search(sentence, fault.message)


@pytest.mark.parametrize(
    ("break_it", "kind", "message"),
    [
        (
            lambda s: s.add_image("top", picture(size=(480, 640)), 10.1),
            InputKind.CAMERA,
            "sends 640x480 pixels, expected 320x240",
        ),
        (
            lambda s: s.refuse_image("top", "encoding 'yuv422' is not known"),
            InputKind.CAMERA,
            "camera top: encoding 'yuv422'",
        ),
        (lambda s: s.refuse_joints("names of another robot"), InputKind.JOINTS, "joint_states: names of another robot"),
        (
            lambda s: s.add_joints(joint_state(10.1, np.full(SPEC.width, np.nan))),
            InputKind.JOINTS,
            "left_joint1 is not a finite",
        ),
    ],
)
def test_unusable_input_is_a_fault_until_a_good_one_comes(break_it, kind: InputKind, message: str) -> None:
    sync = ready()
    assert sync.fault(10.1) is None
    break_it(sync)
    fault = sync.fault(10.1)
    assert fault is not None
    assert fault.kind is kind
    assert message in fault.message
    assert sync.observe("go", 10.1) is None
    sync.add_joints(joint_state(10.12))
    sync.add_image("top", picture(), 10.12)
    assert sync.fault(10.13) is None


def test_late_camera_and_late_joints_are_faults() -> None:
    sync = ready()
    sync.add_joints(joint_state(10.7))
    assert "camera top is 0.70 s old, limit 0.5 s" in sync.fault(10.7).message
    sync = ready()
    sync.add_image("top", picture(), 10.7)
    assert sync.fault(10.7).kind is InputKind.JOINTS


def test_stamps_from_the_future_are_a_fault() -> None:
    assert "in the future" in ready().fault(9.0).message


def test_picture_that_never_changes_is_frozen_only_when_the_robot_moves() -> None:
    still, moving = ready(), ready()
    for step in range(1, 100):
        stamp_s = 10.0 + 0.033 * step
        for sync, moved in ((still, 0.0), (moving, 0.01 * step)):
            sync.add_joints(joint_state(stamp_s, np.array(SPEC.home) + moved))
            sync.add_image("top", picture(), stamp_s)
    assert still.fault(stamp_s) is None
    assert "camera top is frozen" in moving.fault(stamp_s).message


def test_memory_is_bounded_and_clocks_may_step_back() -> None:
    sync = ready()
    for step in range(1000):
        sync.add_joints(joint_state(10.0 + step))
        sync.add_image("top", picture(step % 3), 10.0 + step)
    assert len(sync._joints) <= 100
    assert len(sync._cameras["top"].frames) <= 4
    sync.add_joints(joint_state(5.0))
    sync.add_image("top", picture(), 5.0)
    assert sync.observe("go", 5.01).stamp_s == 5.0
