# SPDX-License-Identifier: Apache-2.0
"""The whole loop of VLM2VLA: subtasks, plan, actions, motion, verdict, retry, done; only the writer is scripted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chatvla_control.cartesian import arm_models, tool_poses
from chatvla_control.contracts import ReasoningSource
from chatvla_policy.runtime.seam import begun_later, stitched_plan
from chatvla_policy.vlm2vla.text_forms import MalformedError
from chatvla_policy.vlm2vla.verifier import ModelVerifier

from ..vlm2vla.scripted import HOME, SPEC, Robot, Script, scripted_policy

STEPS = "3+4=7. I should pick the left card. ['left arm: Move to the left card', 'left arm: Grasp the left card']"
THERE, GRASP = "[[0.03, 0.02, 0.0, 1.0], [0.0, 0.0, -0.02, 1.0]]", "[[0.0, 0.0, 0.0, 0.0]]"
YES = '{"success": true, "confidence": "High", "reasoning": "Seen."}'
NO = YES.replace("true", "false")


def script(**answers: list[str]) -> Script:
    return Script({"Steps": [STEPS], "Plan": ["Move forward."], "Actions": [THERE, GRASP], "Done": [YES], **answers})


def way(robot: Robot) -> np.ndarray:
    """Return how far [m] the left tool has come from home."""
    return (tool_poses(SPEC, robot.positions) - tool_poses(SPEC, HOME))[0, :3, 3]


def test_subtasks_are_written_once_and_done_one_after_the_other():
    writer = script()
    robot = Robot(scripted_policy(writer))
    last = robot.until_done()
    np.testing.assert_allclose(way(robot), [0.03, 0.02, -0.02], atol=3e-3)
    assert robot.positions[6] == pytest.approx(0.04, abs=1e-3)
    assert robot.positions[13] == pytest.approx(0.08, abs=1e-3)
    assert (writer.count("Steps"), writer.count("Plan"), writer.count("Actions")) == (1, 2, 2)
    assert not robot.faults
    assert robot.inferences[0].reasoning.text.startswith(
        "3+4=7. I should pick the left card. Step 1 of 2: left arm: Mov"
    )
    assert robot.inferences[0].reasoning.source is ReasoningSource.GENERATED
    assert last.reasoning.source is ReasoningSource.REUSED
    asked = [item for item in writer.asked if item.question.startswith("Actions")]
    assert asked[0].question.endswith("1.0].")
    assert "Grasp the left card Move forward. Tool at [" in asked[1].question
    assert {item.temperature for item in asked} == {0.2}
    assert robot.policy.counts == dict.fromkeys(robot.policy.counts, 0) | {"answers": 5}
    robot.policy.reset(1)
    assert not any(robot.policy.counts.values())


def test_a_way_counts_from_the_place_that_was_told():
    writer = script(Actions=["[[0.034, 0.000, -0.024, 1.0]]", "[[0.02, 0.00, 0.00, 0.0]]"])
    robot = Robot(scripted_policy(writer, decimals=2))
    robot.until_done()
    # Home is [0.310, 0.281, 0.200]: the first way ends at [0.344, 0.281, 0.176], which is told to the centimetre.
    _, asked = (item.question for item in writer.asked if item.question.startswith("Actions"))
    assert asked.endswith("Tool at [0.34, 0.28, 0.18, 1.0].")
    # Where it does not move it stays where it is.
    reached = tool_poses(SPEC, robot.positions)[0, :3, 3]
    np.testing.assert_allclose(reached, [0.36, 0.281, 0.176], atol=1.5e-3)


def test_malformed_answers_are_asked_for_again_and_counted():
    writer = script(Actions=["Sure: [[0.03, 0, 0, 1]]", "[[0.03, 0.0, 0.0, 0.5]]", THERE, GRASP])
    robot = Robot(scripted_policy(writer))
    robot.until_done()
    assert (robot.policy.counts["malformed"], robot.policy.counts["given_up"]) == (2, 0)
    silent = Robot(scripted_policy(script(Steps=["I see a card."])))
    with pytest.raises(MalformedError, match="no readable answer in 5 tries"):
        silent.ask()


def test_a_subtask_without_readable_actions_is_left_out():
    robot = Robot(scripted_policy(script(Actions=["none"] * 5 + [GRASP])))
    robot.until_done()
    assert "Left out: no readable answer in 5 tries" in robot.inferences[0].reasoning.text
    assert robot.policy.counts["given_up"] == 1
    np.testing.assert_allclose(way(robot), 0.0, atol=1e-3)


def test_a_verdict_against_it_repeats_a_subtask_at_most_twice():
    writer = script(Actions=[THERE, "[[0.01, 0.0, 0.0, 1.0]]", GRASP], Done=[NO, YES])
    policy = scripted_policy(writer, views=("top", "left"), verifier=ModelVerifier(writer))
    robot = Robot(policy)
    robot.until_done()
    np.testing.assert_allclose(way(robot), [0.04, 0.02, -0.02], atol=3e-3)
    assert (policy.counts["verdicts"], policy.counts["retries"]) == (3, 1)
    verdict = next(item for item in writer.asked if item.question.startswith("Done"))
    assert verdict.images == 4  # Both views before, both after.
    never = script(Actions=[GRASP], Done=[NO])
    policy = scripted_policy(never, verifier=ModelVerifier(never))
    Robot(policy).until_done()
    assert never.count("Plan") == 2 * (1 + policy.config.max_retries)


def test_a_forced_thought_stands_before_the_subtasks():
    writer = script(Steps=["'left arm: Grasp the left card']"], Actions=[GRASP])
    robot = Robot(scripted_policy(writer))
    found = robot.ask("I should pick the left card.")
    assert writer.asked[0].begin == "I should pick the left card. ["
    assert found.reasoning.source is ReasoningSource.FORCED
    assert found.reasoning.text.startswith("I should pick the left card. Step 1 of 1")


def test_a_way_out_of_reach_ends_where_the_arm_can_go():
    far = "[[0.0, 0.0, 0.25, 1.0], [0.3, 0.0, 0.0, 1.0], [0.3, 0.3, 0.0, 1.0], [-0.02, 0.0, 0.0, 1.0]]"
    robot = Robot(scripted_policy(script(Actions=[far, GRASP])))
    robot.until_done()
    assert not robot.faults
    assert robot.policy.counts["filtered"] >= 1
    assert robot.policy.counts["not_reached"] == 0
    assert way(robot)[2] > 0.05


def test_a_chunk_that_was_refused_is_no_motion_and_closes_no_gripper():
    writer = script(Actions=[GRASP])
    lost: list[str] = []

    def refuse(chunk) -> bool:
        grasps = chunk.actions[-1, 9] < 0.05
        if grasps and len(lost) < 2:
            lost.append(chunk.id)
        return chunk.id in lost

    robot = Robot(scripted_policy(writer), refuse=refuse)
    robot.ask(), robot.ask(), robot.ask()
    assert robot.inferences[-1].chunk.actions[-1, 9] == pytest.approx(0.08)
    assert (robot.policy.counts["not_reached"], robot.policy.counts["retries"]) == (1, 1)
    robot.until_done()
    assert robot.policy.counts["not_reached"] == 2
    assert robot.positions[6] == pytest.approx(0.04, abs=1e-3)


def test_an_arm_that_is_elsewhere_tries_again_then_goes_on():
    writer = script(Actions=[THERE])
    robot = Robot(scripted_policy(writer))
    held = HOME.copy()
    for _ in range(80):
        found = robot.ask()
        robot.positions[:] = held  # Something holds the arm.
        robot.controller = type(robot.controller)(SPEC)
        if found.done:
            break
    assert found.done
    assert robot.policy.counts["retries"] == 2 * robot.policy.config.max_retries
    assert robot.policy.counts["not_reached"] == 2 * (1 + robot.policy.config.max_retries)


def test_what_is_left_of_a_chunk_follows_the_time_at_which_it_was_begun():
    policy = scripted_policy(script())
    robot = Robot(policy)
    policy.infer(robot.observation())
    robot.time_s += 1.0
    first = policy.infer(robot.observation()).chunk
    # The node begins it half a second later, and keeps the second before it as the plan.
    begun = begun_later(first, robot.time_s + 0.5)
    plan = stitched_plan(begun, playing=replace(first, id="hold"), measured=HOME)
    robot.time_s += 1.0
    left = policy.infer(robot.observation(), None, plan).chunk
    assert left.start_s == pytest.approx(robot.time_s, abs=0.021)
    row = round((left.start_s - begun.start_s) / begun.step_period_s)
    np.testing.assert_array_equal(left.actions, first.actions[row:])


def test_without_reasoning_it_writes_actions_until_there_are_none():
    writer = Script({"Actions": [f"left arm: {THERE}", "right arm: [[0.0, 0.0, 0.02, 1.0]]", "left arm: []"]})
    robot = Robot(scripted_policy(writer, variant="no_reasoning"))
    robot.until_done()
    np.testing.assert_allclose(way(robot), [0.03, 0.02, -0.02], atol=3e-3)
    assert "Tool at" not in writer.asked[0].question
    assert len(arm_models(SPEC)) == 2


@pytest.mark.parametrize("other", ["text", "instruction"])
def test_what_comes_in_the_middle_of_a_motion_is_about_where_the_arm_rests(other: str):
    writer = script(Actions=["[[0.08, 0.0, 0.0, 1.0], [-0.08, 0.0, 0.0, 1.0]]", "[[0.0, 0.05, 0.0, 1.0]]"])
    robot = Robot(scripted_policy(writer))
    robot.ask()
    robot.ask()
    assert way(robot)[0] > 0.07
    robot.think_s = 2.0
    if other == "instruction":
        robot.policy.reset(1)
    forced = "I should pick the right card." if other == "text" else None
    while writer.count("Actions") < 2:
        robot.ask(forced)
    # The old list does not go on; what is told is where the arm came to rest, and the new list counts from there.
    rest = tool_poses(SPEC, robot.positions)[0, :3, 3]
    assert way(robot)[0] > 0.03
    told = next(item.question for item in reversed(writer.asked) if item.question.startswith("Actions"))
    assert f"Tool at [{rest[0]:.3f}, {rest[1]:.3f}" in told
    while writer.count("Actions") < 3:
        robot.ask(forced)
    np.testing.assert_allclose(tool_poses(SPEC, robot.positions)[0, :3, 3] - rest, [0.0, 0.05, 0.0], atol=3e-3)
    assert not robot.faults
