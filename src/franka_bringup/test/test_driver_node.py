# SPDX-License-Identifier: Apache-2.0
"""The Franka's executable ends with one sentence where it cannot work; its configuration files fit it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import rclpy
import yaml
from rclpy.parameter import Parameter

from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.parameters import ParameterError
from chatvla_franka_bringup.driver_node import make_port

RUN = "import sys; from chatvla_franka_bringup.driver_node import main; sys.exit(main())"
OF_THE_GENERIC_DRIVER = {"state_timeout_s", "max_age_s", "realtime_priority"}


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (["port:=usb"], "parameter port is 'usb', expected one of: sim, ros2_control, moveit"),
        (["port:=ros2_control", "gripper:=trajectory", "connect_timeout_s:=0.3"], "no controller listens on"),
        (["workspace_lower_x_m:=0.7", "workspace_upper_x_m:=0.6"], "is empty; widen it"),
        (["workspace_upper_z_m:=2.0"], "workspace_upper_z_m must be of type float from 0.005 to 0.8"),
    ],
)
def test_ends_with_one_sentence(ros_domain: int, parameters: list[str], sentence: str) -> None:
    arguments = [word for parameter in parameters for word in ("-p", parameter)]
    ended = subprocess.run(
        [sys.executable, "-c", RUN, "--ros-args", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["driver.yaml"])
def test_config_file_sets_declared_parameters_only(ros_domain: int, request: pytest.FixtureRequest, name: str) -> None:
    values = yaml.safe_load((request.path.parents[1] / "config" / name).read_text())["/**"]["ros__parameters"]
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    try:
        node = rclpy.create_node("declares", context=context)
        port = make_port(node)
        assert port.cartesian is not None
        assert set(values) <= OF_THE_GENERIC_DRIVER | {key for key in values if node.has_parameter(key)}
    finally:
        rclpy.shutdown(context=context)


def test_cell_narrows_the_workspace_and_cannot_widen_it(ros_domain: int) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    try:
        narrow = [Parameter("workspace_upper_x_m", value=0.6), Parameter("table_z_m", value=-0.02)]
        node = rclpy.create_node("narrow", context=context, parameter_overrides=narrow)
        cartesian = make_port(node).cartesian
        assert cartesian is not None
        assert cartesian.arms[0].upper == (0.6, 0.6, 0.8)
        assert cartesian.arms[0].table_z_m == -0.02
        wide = rclpy.create_node("wide", context=context, parameter_overrides=[Parameter("tool_speed_m_s", value=2.0)])
        with pytest.raises(ParameterError, match="tool_speed_m_s"):
            make_port(wide)
    finally:
        rclpy.shutdown(context=context)


def test_controllers_serve_the_joints_of_the_spec(request: pytest.FixtureRequest) -> None:
    folder = request.path.parents[1] / "config"
    controllers = yaml.safe_load((folder / "controllers.yaml").read_text())
    driver = yaml.safe_load((folder / "driver.yaml").read_text())["/**"]["ros__parameters"]
    moveit = yaml.safe_load((folder / "moveit.yaml").read_text())["/**"]["ros__parameters"]
    arm = controllers["franka_arm_controller"]["ros__parameters"]
    names = [f"{driver['joint_prefix']}{number}" for number in range(1, 8)]
    assert arm["joints"] == names == list(robot_spec("franka").arms[0].joints)
    assert set(arm["gains"]) == set(names)
    assert arm["interpolate_from_desired_state"] is True
    assert controllers["controller_manager"]["ros__parameters"]["update_rate"] == 1000
    assert driver["trajectory_topic"] == "/franka_arm_controller/joint_trajectory"
    gripper = controllers["robotiq_gripper_controller"]["ros__parameters"]
    assert gripper["joint"] == driver["gripper_joint"]
    kind = controllers["controller_manager"]["ros__parameters"]["robotiq_gripper_controller"]["type"]
    assert (driver["gripper"] == "parallel_gripper_command") == kind.startswith("parallel_gripper")
    assert moveit["planning_pipelines"]["pipeline_names"] == ["ompl"]
