# SPDX-License-Identifier: Apache-2.0
"""The trial loop ends when it should and scores the first text, whatever carries the trial."""

from dataclasses import replace

import numpy as np
import pytest

from chatvla_control.robot_spec import robot_spec
from chatvla_control.scene import Pose
from chatvla_eval.session import TrialSettings, TrialSetup, Watch
from chatvla_eval.tasks import task_by_name
from chatvla_eval.tasks.example_scene import GOOD_TEXT, card, scene
from chatvla_eval.tools import tool_points
from chatvla_eval.trial import run_trial, trial_seed

SETUP = TrialSetup(index=0, split="open_world", seed=1)


class ScriptedSession:
    """Plays back a list of watches, one tenth of a second each; the last one repeats."""

    policy_name, privileged, simulation = "scripted", False, True

    def __init__(self, *watches):
        self.watches = list(watches)
        self.ticks = 0
        self.stopped = False

    def reset(self, setup):
        return scene()

    def start(self, setup, instruction, timeout_s):
        assert instruction == scene().instruction

    def watch(self):
        watch = self.watches[min(self.ticks, len(self.watches) - 1)]
        self.ticks += 1
        return replace(watch, elapsed_s=self.ticks * 0.1)

    def frame(self):
        return np.zeros((240, 320, 3), np.uint8)

    def stop(self):
        self.stopped = True

    def close(self):
        pass


def watch(truth=None, **changes):
    return replace(Watch(elapsed_s=0.0, truth=truth or scene(), texts=(GOOD_TEXT,)), **changes)


def run(*watches, **settings):
    session = ScriptedSession(*watches)
    return run_trial(session, task_by_name("math_match"), SETUP, settings=TrialSettings(**settings)), session


PLACED = scene(placed="card_1", success=True)


def test_ends_half_a_second_after_the_policy_is_done():
    result, session = run(watch(), watch(PLACED, finished=True))
    assert (result.success, result.cause, result.picked) == (True, "", "7")
    assert result.seconds == pytest.approx(0.7)
    assert session.stopped


def test_success_is_what_holds_at_the_end():
    result, _ = run(watch(PLACED), watch(PLACED, finished=True), watch(finished=True))
    assert (result.success, result.cause, result.picked) == (False, "execution", "7")


def test_a_card_at_rest_ends_a_trial_whose_policy_is_never_done():
    result, _ = run(watch(PLACED), rest_s=2.0)
    assert result.success
    assert result.seconds == pytest.approx(2.1)


def test_time_runs_out():
    result, _ = run(watch(), timeout_s=1.0)
    assert (result.cause, result.seconds) == ("timeout", pytest.approx(1.0))


def test_error_ends_the_trial_at_once_and_is_no_success():
    result, _ = run(watch(PLACED, error="POLICY_FAULT: nan"))
    assert (result.success, result.cause) == (False, "error:POLICY_FAULT: nan")


def test_card_held_last_is_the_one_picked():
    holding = scene(objects=(card(0, "12", "left", held=True), *scene().objects[1:]))
    result, _ = run(watch(holding), watch(finished=True))
    assert (result.picked, result.cause) == ("12", "following")


def test_first_text_of_the_trial_is_scored():
    result, _ = run(watch(texts=(GOOD_TEXT, "garbage"), finished=True))
    assert (result.text, result.texts, result.measures) == (GOOD_TEXT, 2, {"ocr": 4, "math": 2})


def test_trial_without_text_scores_nothing():
    result, _ = run(watch(texts=(), finished=True))
    assert (result.text, result.measures) == ("", {"ocr": 0, "math": 0})
    assert (result.cause, result.link) == ("no_text", "no_text")


def test_time_runs_out_without_a_text():
    result, _ = run(watch(texts=()), timeout_s=1.0)
    assert (result.cause, result.link) == ("timeout", "no_text")


@pytest.mark.parametrize(("near", "broken"), [("card_0", "following"), ("card_1", "execution")])
def test_nothing_taken_is_judged_by_what_the_gripper_went_for_when_the_policy_says_done(near, broken):
    home = np.array(robot_spec("arx_r5").home)
    right = Pose(position=tuple(tool_points("math_match")(home)[0]), quaternion=(0.0, 0.0, 0.0, 1.0))
    objects = tuple(replace(item, pose=right) if item.name == near else item for item in scene().objects)
    result, _ = run(watch(scene(objects=objects), joints=home, finished=True))
    label = next(item.label for item in objects if item.name == near)
    assert (result.picked, result.chosen, result.approached) == ("", "7", label)
    assert (result.cause, result.link) == (broken, broken)


def test_runs_share_no_trial_seeds():
    seeds = {trial_seed(run_seed, index) for run_seed in range(20) for index in range(200)}
    assert len(seeds) == 4000
