# SPDX-License-Identifier: Apache-2.0
"""Robot specs are complete, consistent and survive storage."""

from __future__ import annotations

import json

import numpy as np
import pytest

from chatvla_control.robot_spec import RobotSpec, UnknownRobotError, robot_names, robot_spec


@pytest.mark.parametrize("name", robot_names())
def test_limits_are_ordered_positive_and_cited(name: str) -> None:
    spec = robot_spec(name)
    assert (spec.lower < spec.upper).all()
    assert (spec.velocity > 0).all()
    assert (spec.acceleration > 0).all()
    assert all(joint.source and joint.unit in ("rad", "m") for joint in spec.joints)
    assert len(set(spec.joint_names)) == spec.width


@pytest.mark.parametrize("name", robot_names())
def test_home_lies_inside_the_limits(name: str) -> None:
    spec = robot_spec(name)
    home = np.array(spec.home)
    assert home.shape == (spec.width,)
    assert ((spec.lower <= home) & (home <= spec.upper)).all()


@pytest.mark.parametrize("name", robot_names())
def test_arms_cover_the_joints_in_order(name: str) -> None:
    spec = robot_spec(name)
    assert tuple(joint for arm in spec.arms for joint in (*arm.joints, arm.gripper)) == spec.joint_names


@pytest.mark.parametrize("name", robot_names())
def test_spec_survives_json(name: str) -> None:
    spec = robot_spec(name)
    again = RobotSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.sha256() == spec.sha256()


def test_arx_r5_has_the_papers_shape() -> None:
    spec = robot_spec("arx_r5")
    assert (spec.width, spec.rate_hz) == (14, 50.0)
    assert spec.joint_names[6] == "left_gripper"
    assert spec.joint_names[7] == "right_joint1"


def test_franka_runs_at_15_hz() -> None:
    assert (robot_spec("franka").width, robot_spec("franka").rate_hz) == (8, 15.0)


def test_unknown_robot_lists_those_that_exist() -> None:
    with pytest.raises(UnknownRobotError, match="arx_r5, franka, ur5e"):
        robot_spec("pr2")


@pytest.mark.parametrize("change", [{"joints": 3}, {"colour": "red"}, {"arms": [{"name": "left"}]}])
def test_spec_of_another_version_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        RobotSpec.from_dict({**robot_spec("arx_r5").to_dict(), **change})
