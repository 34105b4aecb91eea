# SPDX-License-Identifier: Apache-2.0
"""Two clocks, overrides, stale results and seams, on a simulated clock with the driver's own check and player."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chatvla_control.chunk_check import check_chunk
from chatvla_control.contracts import ActionMode, Inference, ReasoningSource
from chatvla_policy.runtime.scene_change import SceneMemory
from chatvla_policy.runtime.seam import plan_at
from chatvla_policy.runtime.seam_trial import seam_ratios

from .clocked_robot import LATER, PICTURE, Kept, Robot
from .swinging import SPEC, STEP_S, SwingingPolicy, joint_state


class Posing(SwingingPolicy):
    """Commands poses of tools, in other columns than the joints."""

    def infer(self, *given) -> Inference:
        made = super().infer(*given[:2])
        rows = np.zeros((len(made.chunk.actions), 20))
        return replace(made, chunk=replace(made.chunk, actions=rows, mode=ActionMode.CARTESIAN_POSE))


class Holding(SwingingPolicy):
    """Stays where it is."""

    def infer(self, *given) -> Inference:
        made = super().infer(*given[:2])
        rows = np.repeat(given[0].joint_positions[None], 5, axis=0)
        return replace(made, chunk=replace(made.chunk, actions=rows))


def test_poses_are_followed_without_a_look_at_the_joints() -> None:
    robot = Robot(policy=Posing())
    robot.scheduler.follow("pose")
    robot.run(2.0)
    assert len(robot.published) >= 3
    assert robot.published[-1][1] is not None


def test_chunks_come_at_their_period_while_the_one_before_plays() -> None:
    robot = Robot(chunk_period_s=0.5)
    robot.scheduler.follow("swing")
    robot.run(10.0)
    assert len(robot.published) == pytest.approx(20, abs=1)
    gaps = np.diff([time_s for time_s, *_ in robot.published])
    assert gaps.max() <= 0.5 + 2 * STEP_S
    assert not robot.refused


def test_nothing_is_inferred_without_an_instruction() -> None:
    robot = Robot()
    robot.run(1.0)
    assert not robot.published


def test_an_instruction_waits_for_a_picture_of_its_own_time() -> None:
    robot = Robot()
    robot.scheduler.follow("wait")
    robot.sync.add_joints(joint_state(robot.now_s, robot.positions, robot.velocities))
    robot.sync.add_image("top", PICTURE, robot.now_s - 0.02)
    # The scene may have been set anew since: the picture from before it says nothing about it.
    assert robot.scheduler.next_job(robot.now_s) is None
    robot.sync.add_image("top", LATER, robot.now_s + 0.01)
    job = robot.scheduler.next_job(robot.now_s + 0.02)
    assert job is not None
    assert job.observation.stamp_s == pytest.approx(robot.now_s + 0.01)


def test_passed_rows_are_dropped_and_never_shifted() -> None:
    robot = Robot(delay_s=lambda: 0.3)
    robot.scheduler.follow("swing")
    robot.run(4.0)
    first_s, _, first = robot.published[0]
    # The robot still rested where the first was planned from: all of it begins later.
    assert first_s <= first.start_s < first_s + 2 * STEP_S
    assert len(first.actions) == 75
    assert first.valid_until_s - first.start_s == pytest.approx(75 * STEP_S)
    assert not robot.refused
    for published_s, _, chunk in robot.published[1:]:
        assert chunk.start_s >= published_s
        assert (chunk.start_s - chunk.stamp_s) / STEP_S == pytest.approx(
            round((chunk.start_s - chunk.stamp_s) / STEP_S)
        )
        assert chunk.start_s - published_s < 2 * STEP_S
        assert len(chunk.actions) < 75


def test_clock_that_is_set_back_costs_no_more_than_a_new_beginning() -> None:
    robot = Robot(chunk_period_s=0.5)
    robot.scheduler.follow("swing")
    robot.run(3.0)
    before, robot.now_s = len(robot.published), robot.now_s - 50.0
    robot.run(3.0)
    assert len(robot.published) - before == pytest.approx(6, abs=1)
    assert all(chunk.stamp_s < 60.0 for _, _, chunk in robot.published[before:])
    assert not robot.refused


def test_hold_that_took_long_to_think_of_is_taken_by_the_driver() -> None:
    robot = Robot(policy=Holding(), delay_s=lambda: 6.0)
    robot.scheduler.follow("think")
    robot.run(7.0)
    assert len(robot.published) == 1
    assert not robot.refused


def test_chunk_that_is_ready_after_its_end_is_dropped() -> None:
    late = {"s": 0.1}
    robot = Robot(policy=SwingingPolicy(steps=20), delay_s=lambda: late["s"])
    robot.scheduler.follow("swing")
    robot.run(0.3)
    assert robot.published
    late["s"] = 0.6
    robot.run(2.0)
    assert robot.scheduler.counts.dropped_late >= 1


@pytest.mark.parametrize("delay_ms", [0, 50, 100, 200, 350, 500])
@pytest.mark.parametrize("seed", [0, 1])
def test_seams_are_as_smooth_as_the_chunks_themselves(delay_ms: int, seed: int) -> None:
    robot = Robot(delay_s=lambda: delay_ms / 1e3)
    robot.scheduler.follow("swing", seed=seed)
    robot.run(10.0)
    jumps, steps = jumps_and_steps(robot)
    assert len(jumps) >= 8
    assert jumps.max() <= np.percentile(steps, 99)
    assert not robot.refused


@pytest.mark.parametrize("chunking", [True, False])
def test_seams_stay_smooth_when_the_delay_is_a_surprise(chunking: bool) -> None:
    rng = np.random.default_rng(3)
    robot = Robot(delay_s=lambda: rng.uniform(0.0, 0.5), chunking=chunking)
    robot.scheduler.follow("swing")
    robot.run(15.0)
    jumps, steps = jumps_and_steps(robot)
    assert jumps.max() <= np.percentile(steps, 99)
    assert not robot.refused


def jumps_and_steps(robot: Robot) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest joint jump [rad] per seam and the largest joint steps inside the chunks that were played.

    A jump is how far the new plan begins from where the old one is at that time.
    """
    jumps, steps = [], []
    for number, (_, before, chunk) in enumerate(robot.published):
        rotary = np.array([joint.unit == "rad" for joint in SPEC.joints])
        if before is not None and before.valid_until_s > chunk.start_s:
            jumps.append(np.abs(chunk.actions[0] - plan_at(before, chunk.start_s))[rotary].max())
        end_s = robot.published[number + 1][2].start_s if number + 1 < len(robot.published) else np.inf
        rows = chunk.actions[: round(min((end_s - chunk.start_s) / STEP_S, len(chunk.actions))) + 1]
        steps.extend(np.abs(np.diff(rows, axis=0))[:, rotary].max(axis=1))
    return np.array(jumps), np.array(steps)


def test_time_that_writing_takes_is_not_kept_of_the_plan_while_the_text_is_kept() -> None:
    policy = SwingingPolicy()
    policy.reuse, policy.settings = True, Kept()
    seconds = iter([0.5])
    robot = Robot(policy=policy, delay_s=lambda: next(seconds, 0.1))
    robot.scheduler.follow("swing")
    robot.run(3.0)
    sources = [inference.reasoning.source for inference in robot.inferences]
    assert sources[0] is ReasoningSource.GENERATED
    assert set(sources[1:]) == {ReasoningSource.REUSED}
    assert robot.scheduler.commit_s < 0.3
    assert robot.scheduler.counts.beyond_commit == 0


def test_delays_of_a_policy_that_keeps_no_text_are_learned_all_the_same() -> None:
    policy = SwingingPolicy()
    policy.settings = Kept()
    robot = Robot(policy=policy, delay_s=lambda: 0.45)
    robot.scheduler.follow("swing")
    robot.run(10.0)
    assert {inference.reasoning.source for inference in robot.inferences} == {ReasoningSource.GENERATED}
    assert robot.scheduler.commit_s > 0.45
    assert robot.scheduler.counts.beyond_commit <= 1


@pytest.mark.parametrize(("text", "thought_about"), [("Stop.", False), ("I should pick the card.", True)])
def test_a_forced_text_that_is_thought_about_first_takes_as_long_as_writing(text: str, thought_about: bool) -> None:
    policy = SwingingPolicy()
    policy.reuse, policy.settings = True, Kept()
    seconds = {}
    robot = Robot(policy=policy, delay_s=lambda: seconds.pop("next", 0.1))
    robot.scheduler.thinks_about = lambda forced: "card" in forced
    robot.scheduler.follow("swing")
    robot.run(1.0)
    before, seconds["next"] = len(robot.inferences), 0.5
    robot.scheduler.force(text)
    robot.run(2.5)
    assert {inference.reasoning.source for inference in robot.inferences[before:]} == {ReasoningSource.FORCED}
    assert (robot.scheduler.commit_s < 0.3) is thought_about
    assert not robot.scheduler._writes(robot.now_s, fresh=False), "the text is kept until its time is over"


def test_commanded_motion_stays_inside_the_limits_whatever_the_delay() -> None:
    rng = np.random.default_rng(5)
    robot = Robot(delay_s=lambda: rng.choice([0.0, 0.05, 0.5, 1.2]))
    robot.scheduler.follow("swing")
    robot.run(15.0)
    moves = np.diff(robot.commands, axis=0) / STEP_S
    assert (np.abs(moves) <= SPEC.velocity * (1 + 1e-6)).all()
    assert (np.abs(np.diff(moves, axis=0) / STEP_S) <= SPEC.acceleration * (1 + 1e-6)).all()


def test_forced_text_marks_the_next_chunk_and_drops_what_was_on_its_way() -> None:
    robot = Robot(delay_s=lambda: 0.2)
    robot.scheduler.follow("swing")
    robot.run(1.06)
    begun = len(robot.inferences)
    assert robot.outcome is not None
    robot.scheduler.force("I should pick the left card.")
    robot.run(0.6)
    later = robot.inferences[begun:]
    assert later
    assert {inference.reasoning.source for inference in later} == {ReasoningSource.FORCED}
    assert {inference.chunk.reasoning_source for inference in later} == {ReasoningSource.FORCED}
    assert robot.scheduler.counts.dropped_stale == 1
    robot.scheduler.force(None)
    robot.run(0.6)
    assert robot.inferences[-1].reasoning.source is ReasoningSource.GENERATED


def test_stop_brakes_within_the_limits_and_drops_what_was_on_its_way() -> None:
    robot = Robot(delay_s=lambda: 0.2)
    robot.scheduler.follow("swing")
    robot.run(1.1)
    count = len(robot.published)
    hold = robot.scheduler.stop(robot.now_s)
    assert hold is not None
    assert check_chunk(hold, SPEC, now_s=robot.now_s, measured=robot.positions) is None
    assert robot.controller.accept(hold, now_s=robot.now_s, measured=robot.positions) is None
    robot.run(1.5)
    assert len(robot.published) == count
    np.testing.assert_allclose(robot.commands[-1], robot.commands[-10])


def test_plan_that_the_robot_does_not_follow_is_not_continued() -> None:
    robot = Robot()
    robot.scheduler.follow("swing")
    robot.run(1.0)
    robot.sync.add_joints(joint_state(robot.now_s, np.clip(robot.positions + 1.0, SPEC.lower, SPEC.upper)))
    assert robot.scheduler._followed_plan(robot.now_s) is None


def test_camera_fault_stops_new_chunks() -> None:
    robot = Robot()
    robot.scheduler.follow("swing")
    robot.run(1.0)
    count = len(robot.published)
    robot.sync.refuse_image("top", "encoding is unknown")
    for _ in range(50):
        assert robot.scheduler.next_job(robot.now_s) is None
    assert len(robot.published) == count


def test_changed_scene_brings_a_new_text_before_its_time() -> None:
    robot = Robot()
    robot.policy.reuse, start = True, robot.positions.copy()
    robot.scheduler.follow("swing")
    robot.run(3.0)
    assert robot.policy.anew == 0
    other = PICTURE.copy()
    other[: len(other) // 4] ^= 128
    for _ in range(50):
        robot.now_s += STEP_S
        robot.sync.add_joints(joint_state(robot.now_s, start))
        robot.sync.add_image("top", other, robot.now_s)
        if (job := robot.scheduler.next_job(robot.now_s)) is not None:
            break
    assert job.reason_anew


def test_scene_is_compared_only_where_the_robot_stands_as_before() -> None:
    there, elsewhere = np.zeros(SPEC.width), np.full(SPEC.width, 0.2)
    image = np.full((240, 320, 3), 120, np.uint8)
    card = image.copy()
    card[100:120, 150:180] = 250
    memory = SceneMemory()
    assert memory.changed_share({"top": card}, there) == 0.0
    memory.remember({"top": image}, there)
    assert memory.changed_share({"top": card}, there + 0.05) == pytest.approx(6 / 768)
    assert memory.changed_share({"top": card}, elsewhere) == 0.0
    # The same scene under a brighter exposure.
    assert memory.changed_share({"top": image + 40}, there) == 0.0
    memory.forget()
    assert memory.changed_share({"top": card}, there) == 0.0


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [("error", "no memory left", "RuntimeError: no memory left"), ("bad", True, "not finite")],
)
def test_policy_that_fails_gives_a_sentence_and_no_chunk(field: str, value: object, sentence: str) -> None:
    robot = Robot()
    robot.scheduler.follow("swing")
    setattr(robot.policy, field, value)
    robot.tick()
    outcome = robot.outcome
    assert outcome.inference is None
    assert sentence in outcome.error
    robot.run(0.5)
    assert robot.scheduler.counts.failures >= 1
    assert not robot.published


def test_same_inputs_and_delays_give_the_same_chunks() -> None:
    runs = []
    for _ in range(2):
        robot = Robot()
        robot.scheduler.follow("swing", seed=4)
        robot.run(3.0)
        runs.append(b"".join(chunk.actions.tobytes() for _, _, chunk in robot.published))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("delay_ms", [0, 150, 500])
def test_seams_of_the_benchmark_reach_their_bar(delay_ms: int) -> None:
    jump, step = seam_ratios(robot="arx_r5", delay_s=delay_ms / 1e3, seconds=8.0)
    assert jump <= 1.0
    assert step <= 1.5
