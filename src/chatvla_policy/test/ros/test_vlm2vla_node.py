# SPDX-License-Identifier: Apache-2.0
"""VLM2VLA in the policy node over real DDS: it moves the arm and ends the goal; an untrained one says what fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chatvla_control.cartesian import tool_poses
from chatvla_msgs.action import FollowInstruction
from chatvla_msgs.srv import Ask
from chatvla_policy.model.tiny import make_tiny_folder
from chatvla_policy.systems import system_of
from chatvla_policy.vlm2vla.config import Vlm2VlaConfig
from chatvla_policy.vlm2vla.folder import save_vlm2vla

from ..runtime.swinging import SPEC
from ..vlm2vla.scripted import Script, scripted_policy

Codes = FollowInstruction.Result
STEPS = "I should pick the left card. ['left arm: Lift the card', 'left arm: Release the card']"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of the smallest model, with random weights and without adapters."""
    folder = tmp_path_factory.mktemp("vlm2vla")
    known = scripted_policy(Script({}))
    config = Vlm2VlaConfig(
        prompts="short", max_tries=2, max_new_tokens=6, image_width=112, image_height=84, robots=known.config.robots
    )
    base = make_tiny_folder(folder / "base")
    save_vlm2vla(folder / "policy", config, (known.setup,), {"trained": "no"}, write_adapter=None, base=base)
    return folder / "policy"


def test_a_written_motion_is_played_and_ends_the_goal(serve, robot) -> None:
    writer = Script(
        {
            "Steps": [STEPS],
            "Plan": ["Move."],
            "Actions": ["[[0.0, 0.0, 0.03, 0.0], [-0.03, 0.0, 0.0, 0.0]]", "[[0.0, 0.0, 0.0, 1.0]]"],
        }
    )
    before = tool_poses(SPEC, robot.positions)[0, :3, 3]
    served = serve(scripted_policy(writer), chunk_period_s=0.2)
    result = served.result(served.send(instruction="Pick the card.", timeout_s=20.0), timeout_s=25.0)
    assert result.error_code == Codes.NONE, result.error_msg
    assert not robot.refused
    moved = tool_poses(SPEC, robot.positions)[0, :3, 3] - before
    np.testing.assert_allclose(moved, [-0.03, 0.0, 0.03], atol=3e-3)
    assert robot.positions[6] == pytest.approx(0.08, abs=2e-3)
    assert (writer.count("Steps"), writer.count("Actions")) == (1, 2)
    assert {text.text.partition(" Step")[0] for text in robot.texts} == {"I should pick the left card."}
    assert robot.until(lambda: robot.health().get("policy_answers") == "5"), robot.health()
    assert robot.health()["policy_retries"] == "0"


def test_an_untrained_checkpoint_says_what_it_could_not_write(serve, robot, untrained: Path) -> None:
    assert system_of(untrained) == "vlm2vla"
    served = serve(load=True, checkpoint=str(untrained))
    result = served.result(served.send(instruction="Pick the card."))
    assert result.error_code == Codes.POLICY_FAULT
    assert "MalformedError: no readable answer in 2 tries" in result.error_msg
    assert robot.until(lambda: int(robot.health().get("policy_malformed", "0")) >= 2), robot.health()
    assert not robot.chunks
    answer = served.service(Ask, "ask", question="What do you see?")
    assert answer.success, answer.message
