# SPDX-License-Identifier: Apache-2.0
"""What the node gives its policy of a camera's images, over real DDS: all of them, or the stated part, everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from chatvla_control.contracts import Observation
from chatvla_control.ros.images import image_from_msg
from chatvla_msgs.action import FollowInstruction
from chatvla_msgs.srv import Ask
from chatvla_policy.runtime.overlay import PANEL_HEIGHT

from ..runtime.swinging import picture
from .conftest import TalkingPolicy

WIDE, FOCAL_Y = picture(size=(240, 426)), 176.0
"""Pictures of a ZED 2's shape and angle; 38 degrees of them are 121 rows."""
MIDDLE = np.s_[59:180, 132:294]


class LookingPolicy(TalkingPolicy):
    """Keeps the images that it is given; its model sees 160x120."""

    image_size = (120, 160)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []
        self.asked_about: list[np.ndarray] = []

    def infer(self, observation: Observation, *given: Any, **named: Any) -> Any:
        self.seen.append(observation.images["top"])
        return super().infer(observation, *given, **named)

    def ask(self, question: str, images: dict[str, Any]) -> str:
        self.asked_about.append(images["top"])
        return super().ask(question, images)


def assert_all_are(images: list[np.ndarray], frame: np.ndarray) -> None:
    """The peer's pictures are the frame and the frame with each last bit turned."""
    assert images
    for image in images:
        np.testing.assert_array_equal(image | 1, frame | 1)
        assert np.array_equal(image, frame) or np.array_equal(image, frame ^ 1)


def test_image_of_the_models_shape_reaches_the_policy_bit_for_bit_and_uncopied(serve, robot) -> None:
    served = serve(LookingPolicy(), chunk_period_s=0.1)
    served.send(instruction="swing")
    assert robot.until(lambda: len(served.policy.seen) >= 3)
    assert served.service(Ask, "ask", question="What is there?").success
    assert_all_are(served.policy.seen + served.policy.asked_about, robot.frame)
    # Read where the message's bytes lie.
    assert not any(image.flags.owndata or image.flags.writeable for image in served.policy.seen)


def test_stated_angle_of_a_wide_camera_is_what_everything_sees(serve, robot, capfd: pytest.CaptureFixture) -> None:
    pictures: list[Image] = []
    subscription = robot.node.create_subscription(Image, "overlay", pictures.append, 1)
    robot.frame, robot.encoding, robot.focal_y = WIDE, "bgra8", FOCAL_Y
    served = serve(LookingPolicy(), chunk_period_s=0.1, **{"view_height_deg.top": 38.0})
    served.send(instruction="swing")
    assert robot.until(lambda: len(served.policy.seen) >= 3 and len(pictures) >= 2)
    assert served.service(Ask, "ask", question="What is there?").success
    assert_all_are(served.policy.seen + served.policy.asked_about, WIDE[MIDDLE])
    assert image_from_msg(pictures[-1]).shape == (121 + PANEL_HEIGHT, 162, 3)
    robot.node.destroy_subscription(subscription)
    taken = "camera top: the middle 162x121 of 426x240 pixels is taken, 38 degrees high; the model sees it in 160x120"
    assert capfd.readouterr().err.count(taken) == 1


def test_without_an_angle_a_wide_camera_is_cut_to_the_models_shape(serve, robot) -> None:
    robot.frame = WIDE
    served = serve(LookingPolicy(), chunk_period_s=0.1)
    served.send(instruction="swing")
    assert robot.until(lambda: len(served.policy.seen) >= 3)
    assert_all_are(served.policy.seen, WIDE[:, 53:373])


def test_cut_camera_that_changes_its_size_is_a_fault_and_the_angle_stays_while_configured(serve, robot) -> None:
    robot.frame, robot.focal_y = WIDE, FOCAL_Y
    served = serve(LookingPolicy(), patience_s=0.5, **{"view_height_deg.top": 38.0})
    handle = served.send(instruction="swing")
    assert robot.until(lambda: robot.chunks)
    parameter = Parameter("view_height_deg.top", value=20.0).to_parameter_msg()
    (answer,) = served.service(SetParameters, "policy_node/set_parameters", parameters=[parameter]).results
    assert "view_height_deg.top is read when configuring" in answer.reason
    # As large as the part that was taken.
    robot.frame = WIDE[MIDDLE].copy()
    result = served.result(handle)
    assert result.error_code == FollowInstruction.Result.CAMERA_FAULT
    assert "162x121 pixels, expected 426x240, of which the middle is taken" in result.error_msg
