# SPDX-License-Identifier: Apache-2.0
"""The ARX R5's executable ends with one sentence where it cannot work."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

RUN = "import sys; from arx_r5_driver.driver_node import main; sys.exit(main())"


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (["port:=can", "left_can:=nocan7", "right_can:=nocan8"], "no CAN interface 'nocan7' for the left arm"),
        (["port:=can", "left_can:=nocan7", "right_can:=nocan7"], "give each arm its own CAN interface"),
        (["port:=usb"], "parameter port is 'usb', expected one of: sim, can"),
    ],
)
def test_ends_with_one_sentence(ros_domain: int, parameters: list[str], sentence: str) -> None:
    arguments = [word for parameter in parameters for word in ("-p", parameter)]
    ended = subprocess.run(
        [sys.executable, "-c", RUN, "--ros-args", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_config_file_sets_declared_parameters_only(ros_domain: int, request: pytest.FixtureRequest) -> None:
    path = request.path.parents[1] / "config" / "arx_r5.yaml"
    values = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    import rclpy

    from arx_r5_driver.driver_node import make_port

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    try:
        node = rclpy.create_node("declares", context=context)
        make_port(node)
        of_the_generic_driver = {"state_timeout_s", "max_age_s", "realtime_priority"}
        assert set(values) <= of_the_generic_driver | {name for name in values if node.has_parameter(name)}
    finally:
        rclpy.shutdown(context=context)
