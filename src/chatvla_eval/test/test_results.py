# SPDX-License-Identifier: Apache-2.0
"""results.json holds what other programs rely on, at every moment."""

import json
from dataclasses import replace

import pytest

from chatvla_eval.demonstrations import DEMONSTRATION_NOTE
from chatvla_eval.report import report_html
from chatvla_eval.results import RunInfo, results_dict, source_commit, write_results
from chatvla_eval.summary_table import summary_table, trial_line
from chatvla_eval.tasks.example_scene import GOOD_TEXT
from chatvla_eval.trial_result import TrialResult

INFO = RunInfo(
    task="math_match",
    split="open_world",
    seed=7,
    trials=4,
    policy="expert",
    privileged=True,
    simulation=True,
    commit="abc",
)


def trial(index, *, success=True, cause="", subsets=(), ocr=4):
    return TrialResult(
        index=index,
        seed=700_000 + index,
        instruction="Pick the card.",
        scene={"equation": "3+4", "right_answer": "7", "cards": [{"place": "left", "value": "7"}]},
        text=GOOD_TEXT,
        answer="7",
        texts=1,
        picked="7",
        measures={"ocr": ocr, "math": 2},
        parts={"numbers": 1, "cards": 1, "operator": 2, "answer": 1, "choice": 1},
        success=success,
        cause=cause,
        seconds=6.5,
        subsets=subsets,
    )


TRIALS = [
    trial(1, success=False, cause="refused:jump", ocr=2),
    trial(0, subsets=("never_seen_pair",)),
    trial(2, subsets=("never_seen_pair", "never_seen_font")),
]


def test_results_have_the_agreed_fields(tmp_path):
    results = json.loads(write_results(tmp_path / "deep" / "folder", INFO, TRIALS).read_text())
    assert {"task", "split", "policy", "privileged", "simulation", "seed", "commit", "trials", "summary"} <= set(
        results
    )
    for entry in results["trials"]:
        assert {"seed", "equation", "text", "answer", "picked", "ocr", "math", "success", "cause", "seconds"} <= set(
            entry
        )
    assert [entry["index"] for entry in results["trials"]] == [0, 1, 2]
    assert results["complete"] is False
    success = results["summary"]["success"]
    assert (success["k"], success["n"]) == (2, 3)
    assert success["low"] < 2 / 3 < success["high"]
    assert results["summary"]["ocr"]["mean"] == pytest.approx(10 / 3, abs=1e-6)
    assert (results["summary"]["ocr"]["of"], results["summary"]["math"]["of"]) == (4, 2)
    assert results["summary"]["causes"] == {"refused": 1}


def test_subsets_are_further_keys_of_the_summary():
    summary = results_dict(INFO, TRIALS)["summary"]
    assert summary["never_seen_pair"]["success"]["n"] == 2
    assert summary["never_seen_font"]["success"]["n"] == 1


def test_what_a_policy_counts_is_added_up_and_printed(tmp_path):
    counted = [
        replace(trial(0), counts={"answers": 5, "malformed": 1}),
        replace(trial(1), counts={"answers": 7, "given_up": 2}),
        trial(2),
    ]
    results = json.loads(write_results(tmp_path, INFO, counted).read_text())
    assert [entry["counts"] for entry in results["trials"]][1:] == [{"answers": 7, "given_up": 2}, {}]
    assert results["summary"]["counts"] == {"answers": 12, "malformed": 1, "given_up": 2}
    assert "the policy counted  answers 12, malformed 1, given_up 2" in summary_table(results)
    assert "counted" not in summary_table(results_dict(INFO, TRIALS))


def test_results_before_the_first_trial_are_valid_json(tmp_path):
    results = json.loads(write_results(tmp_path, INFO, []).read_text())
    assert results["summary"]["ocr"]["mean"] is None


def test_writing_leaves_nothing_beside(tmp_path):
    for count in range(1, 4):
        write_results(tmp_path, INFO, TRIALS[:count])
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("changes", "marked"),
    [
        ({}, True),
        ({"split": "open_world"}, False),
        ({"seed": 4}, True),
        ({"seed": 5}, False),
        ({"privileged": True}, False),
        ({"simulation": False}, False),
        ({"transport": "bag", "split": "in_domain + held_out"}, True),
    ],
)
def test_scenes_of_the_demonstrations_are_marked_for_learned_policies(changes, marked):
    shown = replace(INFO, **({"policy": "tiny", "privileged": False, "split": "in_domain", "seed": 0} | changes))
    for results in (results_dict(shown, []), results_dict(shown, TRIALS)):
        assert results["demonstration_scenes"] is marked
        assert (DEMONSTRATION_NOTE in summary_table(results)) is marked
        assert (DEMONSTRATION_NOTE in report_html(results, {})) is marked


def test_one_scene_of_the_demonstrations_among_several_bags_is_enough():
    bags = replace(INFO, policy="tiny", privileged=False, split="in_domain", transport="bag")
    assert not results_dict(bags, TRIALS)["demonstration_scenes"]
    assert results_dict(bags, [*TRIALS, replace(TRIALS[0], index=3, seed=499_999)])["demonstration_scenes"]


def test_failed_write_keeps_the_old_file(tmp_path):
    write_results(tmp_path, INFO, TRIALS)
    before = (tmp_path / "results.json").read_text()
    broken = [trial(0, ocr=float("nan"))]
    with pytest.raises(ValueError, match="JSON"):
        write_results(tmp_path, INFO, broken)
    assert (tmp_path / "results.json").read_text() == before


def test_table_names_privilege_rates_and_what_is_missing():
    table = summary_table(results_dict(INFO, TRIALS))
    for words in ("expert (privileged)", "simulation", "2/3", "never_seen_pair", "refused 1", "INCOMPLETE: 3 of 4"):
        assert words in table


def test_trial_line_says_what_was_asked_and_done():
    line = trial_line(TRIALS[0].to_dict(), number=2, count=4, measures={"ocr": 4, "math": 2})
    assert line == "trial 2/4: 3+4 | answer 7, picked 7 | ocr 2/4 math 2/2 | FAILED (refused:jump), 6.5 s"


def test_commit_is_named():
    assert source_commit() == "unknown" or len(source_commit().removesuffix("-dirty")) == 40


def test_the_system_stands_in_results_and_table():
    from chatvla_eval.policies import system_name

    results = results_dict(replace(INFO, policy="mine", privileged=False, system="vlm2vla"), TRIALS)
    assert results["system"] == "vlm2vla"
    assert "mine [vlm2vla]" in summary_table(results)
    assert system_name("expert") == "expert"
    assert system_name("no/such/checkpoint") == ""
