# SPDX-License-Identifier: Apache-2.0
"""Strict reading of what a language model writes: well-formed texts come back, everything else is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from chatvla_control.robot_spec import robot_spec
from chatvla_policy.vlm2vla.prompts import PROMPTS, arm_of, arms_sentence, with_arm
from chatvla_policy.vlm2vla.text_forms import (
    MalformedError,
    actions_text,
    parse_actions,
    parse_subtasks,
    parse_verdict,
    subtasks_text,
)


def test_actions_come_back_to_the_millimetre():
    actions = np.array([[0.0104, -0.0002, -0.0256, 1.0], [0.0, 0.0, 0.0, 0.0]])
    text = actions_text(actions)
    assert text == "[[0.010, 0.000, -0.026, 1.0], [0.000, 0.000, 0.000, 0.0]]"
    np.testing.assert_allclose(parse_actions(text), np.round(actions, 3), atol=1e-12)


def test_the_papers_example_is_read():
    assert parse_actions("[[-0.002, -0.004, -0.023, 1.0],\n [0.007, -0.002, -0.045, 1.0]]").shape == (2, 4)
    assert parse_actions(" [] ").shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Sure: [[0.01, 0, 0, 1]]", "no list"),
        ("[[0.01, 0, 0, 1]", "no list"),
        ("[[0.01, 0, 0]]", "no list"),
        ("[[0.01, 0, 0, 1], ]", "no list"),
        ("[[1e-2, 0, 0, 1]]", "no list"),
        ("[[nan, 0, 0, 1]]", "no list"),
        ("[[.01, 0, 0, 1]]", "no list"),
        ("[[3.0, 0, 0, 1]]", "at most 1 m"),
        ("[[0.1, 0, 0, 0.5]]", "neither 0"),
        ("[" + ", ".join(["[0, 0, 0, 1]"] * 65) + "]", "at most 64"),
        ("[" * 9000, "no list"),
    ],
)
def test_other_action_texts_are_refused(text: str, says: str):
    with pytest.raises(MalformedError, match=says):
        parse_actions(text)


def test_subtasks_come_back_with_their_thought():
    steps = ("left arm: Move to the card", "left arm: Grasp 'it'")
    assert parse_subtasks(subtasks_text(steps, "I should pick left card.")) == ("I should pick left card.", steps)
    assert parse_subtasks("['Move to Pot', 'Grasp Pot']") == ("", ("Move to Pot", "Grasp Pot"))


@pytest.mark.parametrize(
    "text", ["", "Move", "[]", "['a', 3]", "['a'", "[__import__('os')]", "['']", "[" * 500, "['" + "a" * 200 + "']"]
)
def test_other_subtask_texts_are_refused(text: str):
    with pytest.raises(MalformedError):
        parse_subtasks(text)


def test_verdict_is_exact_json():
    assert parse_verdict('{"success": false, "confidence": "High", "reasoning": "No."}').success is False
    for text in ("", "[]", '{"success": true}', '{"success": 1, "confidence": "", "reasoning": ""}', "{" * 3000):
        with pytest.raises(MalformedError):
            parse_verdict(text)


def test_arms_are_named_where_a_robot_has_several():
    arx, franka = robot_spec("arx_r5"), robot_spec("franka")
    assert with_arm(arx, 1, "Lift") == "right arm: Lift"
    assert (arm_of(arx, "right arm: Lift"), arm_of(franka, "Lift")) == (1, 0)
    with pytest.raises(MalformedError, match="left, right"):
        arm_of(arx, "Lift")
    assert arms_sentence(franka) == ""
    filled = PROMPTS["paper"].fill("subtasks", task="sort", arms=arms_sentence(arx))
    assert "'sort'" in filled
    assert "left and right" in filled
    assert "{" not in PROMPTS["paper"].fill("actions", subtask="a", plan="b")
