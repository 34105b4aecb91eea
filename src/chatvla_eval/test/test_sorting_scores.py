# SPDX-License-Identifier: Apache-2.0
"""Scores of "sort the toys": boxes and the next step from the text, steps from the poses."""

from __future__ import annotations

from chatvla_eval.in_process import InProcessSession
from chatvla_eval.results import RunInfo, results_dict
from chatvla_eval.session import TrialSettings, TrialSetup
from chatvla_eval.tasks import task_by_name
from chatvla_eval.trial import run_trial
from chatvla_sim.toy_placement.sorting_bench import ToySortingBench
from chatvla_sim.toy_placement.sorting_expert import sorting_text

TASK = task_by_name("toy_sorting")


def test_the_right_text_gets_all_points_and_a_wrong_side_none_for_the_place() -> None:
    bench = ToySortingBench()
    truth = bench.reset(split="open_world", seed=5)
    text = sorting_text(truth)
    assert TASK.score(text, truth).measures == {"recognition": 4, "affordance": 1, "steps": 0}
    other = {"left": "right", "right": "left"}[truth.answer]
    wrong = text.replace(f"to the {truth.answer},", f"to the {other},")
    assert wrong != text
    assert TASK.score(wrong, truth).measures["affordance"] == 0
    first = text.partition("<|box_start|>")[2].partition("<|box_end|>")[0]
    assert TASK.score(text.replace(first, "(1,1),(30,30)"), truth).measures["recognition"] == 3
    assert TASK.score("", truth).measures == {"recognition": 0, "affordance": 0, "steps": 0}
    bench.close()


def test_a_trial_counts_its_steps_and_a_short_one_some_of_them() -> None:
    session = InProcessSession(task="toy_sorting", policy="expert", replan_s=0.3)
    setup = TrialSetup(index=0, split="in_domain", seed=0)
    whole = run_trial(session, TASK, setup, settings=TrialSettings(timeout_s=TASK.timeout_s))
    cut = run_trial(session, TASK, setup, settings=TrialSettings(timeout_s=25.0))
    session.close()
    assert whole.success
    assert whole.measures == {"recognition": 4, "affordance": 1, "steps": 4}
    assert not cut.success
    assert 1 <= cut.measures["steps"] < 4
    # The text is about the first step, so the first toy taken is the one that it chose, whatever came after it.
    assert (cut.cause, cut.link) == ("execution", "execution")
    assert whole.picked == whole.chosen == cut.picked == cut.chosen == whole.scene["toys"][0]
    info = RunInfo(
        task="toy_sorting", split="in_domain", seed=0, trials=2, policy="expert", privileged=True, simulation=True
    )
    summary = results_dict(info, [whole, cut])["summary"]
    assert summary["steps"]["of"] == 4
    assert (summary["agreement"]["k"], summary["agreement"]["n"]) == (2, 2)
    assert summary["steps"]["mean"] == (4 + cut.measures["steps"]) / 2
