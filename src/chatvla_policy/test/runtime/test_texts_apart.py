# SPDX-License-Identifier: Apache-2.0
"""Texts that are written apart from chunks: when one is due, and what becomes of it."""

from __future__ import annotations

import numpy as np

from chatvla_control.contracts import Reasoning, ReasoningSource
from chatvla_policy.runtime.inference import Job, WritingOver, write_text

from .clocked_robot import PICTURE, Kept, Robot
from .swinging import STEP_S, SwingingPolicy, joint_state


class Writing(SwingingPolicy):
    """Keeps its text, and can write another apart from chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.reuse, self.settings, self.adopted = True, Kept(reason_every_s=2.0), []

    def adopt(self, reasoning: Reasoning) -> None:
        self.adopted.append(reasoning)

    def write(self, observation, *, pause) -> Reasoning:
        pause()
        raise ValueError("the ink is dry")


def following(seconds: float = 2.5) -> Robot:
    robot = Robot(policy=Writing())
    robot.scheduler.texts_apart = True
    robot.scheduler.follow("swing")
    robot.run(seconds)
    return robot


def text_about(job: Job) -> Reasoning:
    return Reasoning(
        id="new",
        text="I think again.",
        stamp_s=job.observation.stamp_s,
        source=ReasoningSource.GENERATED,
        policy="swinging",
        instruction=job.observation.instruction,
    )


def test_a_text_whose_time_is_over_is_renewed_apart_from_chunks() -> None:
    robot = following(0.0)
    assert robot.scheduler.next_text(robot.now_s) is None, "the first text comes with the first chunk"
    robot.run(2.5)
    written = robot.scheduler.next_text(robot.now_s)
    assert written is not None
    assert robot.scheduler.next_text(robot.now_s) is None, "one text at a time"
    published = len(robot.published)
    robot.run(1.0)
    assert len(robot.published) == published + 2, "chunks wait for the text"
    assert robot.policy.settings.reason_every_s == np.inf, "an inference would write a text of its own"
    assert robot.scheduler.take_text(written, text_about(written))
    robot.run(1.0)
    assert [text.text for text in robot.policy.adopted] == ["I think again."]
    robot.run(0.2)
    assert robot.scheduler.next_text(robot.now_s) is not None, "its time is over too"


def test_a_changed_scene_brings_a_text_apart_from_chunks() -> None:
    robot = following(1.5)
    start = robot.positions.copy()
    robot.scheduler._scene.remember({"top": PICTURE}, start)
    assert robot.scheduler.next_text(robot.now_s) is None
    other = PICTURE.copy()
    other[: len(other) // 4] ^= 128
    while True:
        robot.now_s += STEP_S
        robot.sync.add_joints(joint_state(robot.now_s, start))
        robot.sync.add_image("top", other, robot.now_s)
        robot.scheduler.abandon()
        if (job := robot.scheduler.next_job(robot.now_s)) is not None:
            break
    assert not job.reason_anew, "the chunk would wait for the text"
    written = robot.scheduler.next_text(robot.now_s)
    assert written is not None
    assert robot.scheduler.take_text(written, text_about(written))
    assert robot.scheduler.next_text(robot.now_s) is None, "one change brings one text"


def test_a_text_for_what_is_over_is_dropped() -> None:
    robot = following()
    for over in (lambda: robot.scheduler.follow("other"), lambda: robot.scheduler.force("I should wait.")):
        written = robot.scheduler.next_text(robot.now_s)
        assert written is not None
        over()
        assert not robot.scheduler.take_text(written, text_about(written))
        robot.run(2.5)
    assert robot.scheduler.next_text(robot.now_s) is None, "nobody asks for the text while one is forced"
    assert not robot.policy.adopted


def test_a_text_that_cannot_be_written_is_tried_again_after_its_time() -> None:
    robot = following()
    written = robot.scheduler.next_text(robot.now_s)
    assert written is not None
    text, error = write_text(robot.policy, written, pause=lambda: None)
    assert (text, error) == (None, "ValueError: the ink is dry")
    assert not robot.scheduler.take_text(written, text)
    assert robot.scheduler.next_text(robot.now_s) is None
    robot.run(2.1)
    assert robot.scheduler.next_text(robot.now_s) is not None
    assert robot.scheduler.counts.failures == 1


def test_a_text_that_is_given_up_is_no_failure() -> None:
    robot = following()
    written = robot.scheduler.next_text(robot.now_s)
    assert written is not None

    def over() -> None:
        raise WritingOver

    assert write_text(robot.policy, written, pause=over) == (None, "")
    robot.scheduler.abandon_text()
    assert robot.scheduler.next_text(robot.now_s) is not None, "the next one may begin at once"
    assert robot.scheduler.counts.failures == 0
