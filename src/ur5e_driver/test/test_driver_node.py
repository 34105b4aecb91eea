# SPDX-License-Identifier: Apache-2.0
"""The UR5e's port speaks to a real topic in the controller's order; the executable ends with one sentence otherwise."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from chatvla_control.arm_port import ArmPortError, ArmStateMissingError
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.grippers import make_gripper
from chatvla_control.ros.spin import serving
from ur5e_driver.driver_node import make_port
from ur5e_driver.forward_position_arm import ForwardPositionArm

SPEC = robot_spec("ur5e")
RUN = "import sys; from ur5e_driver.driver_node import main; sys.exit(main())"
COMMANDS, GRIPPER = "/forward_position_controller/commands", "/robotiq_gripper_controller/joint_trajectory"
KNUCKLE = "robotiq_85_left_knuckle_joint"


@pytest.fixture
def node(ros_domain: int) -> Iterator[Any]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node("ur5e_test", context=context)
    with serving(node):
        yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def wait(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, f"waited {timeout_s} s"
        time.sleep(0.02)


def test_port_speaks_with_controller_and_gripper(node: Any) -> None:
    commands: list[list[float]] = []
    fingers: list[float] = []
    node.create_subscription(Float64MultiArray, COMMANDS, lambda msg: commands.append(list(msg.data)), 10)
    node.create_subscription(JointTrajectory, GRIPPER, lambda msg: fingers.append(msg.points[0].positions[0]), 10)
    states = node.create_publisher(JointState, "/joint_states", 10)
    gripper = make_gripper(
        node, "trajectory", GRIPPER, joint=KNUCKLE, width_m=0.085, open_joint=0.0, closed_joint=0.7929, max_effort=0.0
    )
    port = ForwardPositionArm(
        node,
        SPEC,
        gripper,
        topic=COMMANDS,
        states_topics=("/joint_states",),
        joints={name: name for name in SPEC.arms[0].joints},
        rate_hz=125.0,
        connect_timeout_s=30.0,
    )
    port.connect()
    with pytest.raises(ArmStateMissingError, match="shoulder_pan_joint"):
        port.read()
    # As the UR's broadcaster sends them: in alphabetical order, the gripper's in a message of its own.
    names = sorted(SPEC.arms[0].joints)
    values = {name: 0.1 * place for place, name in enumerate(SPEC.arms[0].joints, start=1)}
    wait(
        lambda: (
            _read(port, lambda: states.publish(JointState(name=names, position=[values[n] for n in names]))) != "pan"
        )
    )
    wait(lambda: _read(port, lambda: states.publish(JointState(name=[KNUCKLE], position=[0.7929]))) == "")
    assert port.read().positions == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.0])
    port.write(np.array([0.11, 0.21, 0.31, 0.41, 0.51, 0.61, 0.0425]))
    wait(lambda: commands and fingers)
    assert commands[-1] == pytest.approx([0.11, 0.21, 0.31, 0.41, 0.51, 0.61])
    assert fingers[-1] == pytest.approx(0.7929 / 2)
    time.sleep(0.2)
    port.stop()
    time.sleep(0.2)
    # What was measured a while ago is not commanded.
    assert commands[-1] == pytest.approx([0.11, 0.21, 0.31, 0.41, 0.51, 0.61])

    def stopped() -> bool:
        states.publish(JointState(name=[*names, KNUCKLE], position=[*(values[n] for n in names), 0.7929]))
        time.sleep(0.05)
        port.stop()
        return commands[-1] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])

    wait(stopped)


def _read(port: ForwardPositionArm, publish: Callable[[], None]) -> str:
    publish()
    time.sleep(0.05)
    try:
        port.read()
    except ArmStateMissingError as error:
        return "pan" if "shoulder_pan" in str(error) else str(error)
    return ""


def test_config_file_sets_declared_parameters_only(node: Any, request: pytest.FixtureRequest) -> None:
    values = yaml.safe_load((request.path.parents[1] / "config" / "ur5e.yaml").read_text())["/**"]["ros__parameters"]
    assert make_port(node).cartesian is not None
    assert set(values) <= {name for name in values if node.has_parameter(name)}


def test_missing_controller_is_one_sentence(ros_domain: int) -> None:
    parameters = ["port:=ros2_control", "gripper:=trajectory", "connect_timeout_s:=0.2"]
    arguments = [word for parameter in parameters for word in ("-p", parameter)]
    ended = subprocess.run(
        [sys.executable, "-c", RUN, "--ros-args", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert f"no controller listens on {COMMANDS}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_unknown_gripper_is_refused(node: Any) -> None:
    with pytest.raises(ArmPortError, match="expected one of"):
        make_gripper(node, "vacuum", "/g", joint="j", width_m=0.1, open_joint=0.0, closed_joint=1.0, max_effort=0.0)
