# SPDX-License-Identifier: Apache-2.0
"""Failures add up by link; forcing the right reasoning says what it cures and what lies behind."""

import json
from dataclasses import replace

import pytest

from chatvla_eval.against import AgainstError, against, read_before
from chatvla_eval.attribution import agreement, forced_correct, links
from chatvla_eval.causes import LINKS, broken_link
from chatvla_eval.cli import main
from chatvla_eval.paired import compared, mcnemar, paired_difference
from chatvla_eval.results import RESULTS_NAME
from chatvla_eval.tasks import ScoredReasoning
from chatvla_eval.trial_result import TrialResult

GOOD = ScoredReasoning(measures={}, parts={}, answer="", perceived=True, computed=True, chosen=True)


def trial(index, link="", **changes):
    made = TrialResult(
        index=index,
        seed=index,
        instruction="",
        scene={},
        text="",
        answer="",
        texts=1,
        picked="7",
        measures={},
        parts={},
        success=not link,
        cause=link,
        seconds=1.0,
        subsets=(),
        link=link,
        chosen="7",
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("cause", "text", "approached", "link"),
    [
        ("", {}, "", ""),
        ("perception", {"chosen": False}, "", "perception"),
        ("following", {}, "", "following"),
        ("error:POLICY_FAULT: nan", {}, "", "run"),
        ("timeout", {}, "card_2", "following"),
        ("timeout", {}, "card_1", "execution"),
        ("timeout", {}, "", "execution"),
        ("refused:jump", {}, "", "execution"),
        ("refused:jump", {"chosen": False, "computed": False}, "", "arithmetic"),
    ],
)
def test_every_cause_has_one_link(cause, text, approached, link):
    found = broken_link(cause, replace(GOOD, **text), written=True, approached=approached, target="card_1")
    assert found == link


@pytest.mark.parametrize("cause", ["no_text", "timeout", "refused:jump"])
def test_a_trial_without_a_text_tells_no_link_of_the_chain(cause):
    nothing = replace(GOOD, perceived=False, computed=False, chosen=False)
    assert broken_link(cause, nothing, written=False, approached="card_2", target="card_1") == "no_text"


def test_links_add_up_to_the_failures_in_the_order_of_the_chain():
    broken = ["", "execution", "no_text", "perception", "execution", "run"]
    trials = [trial(index, link) for index, link in enumerate(broken)]
    found = links(trials)
    assert sum(found.values()) == sum(not one.success for one in trials)
    assert found == {"perception": 1, "execution": 2, "no_text": 1, "run": 1}
    assert [link for link in LINKS if link in found] == list(found)


def test_agreement_counts_trials_in_which_text_and_arm_both_chose():
    trials = [trial(0), trial(1, picked="3"), trial(2, picked=""), trial(3, chosen="")]
    assert (agreement(trials)["k"], agreement(trials)["n"]) == (1, 2)


def test_forced_run_tells_cured_failures_from_those_with_another_behind():
    own = [trial(0), trial(1, "perception"), trial(2, "perception"), trial(3, "following")]
    forced = [trial(0), trial(1), trial(2, "execution"), trial(3, "following")]
    found = forced_correct(own, forced)
    assert found["cured"] == {"perception": {"k": 1, "n": 2}, "following": {"k": 0, "n": 1}}
    assert found["behind"] == {"1": "", "2": "execution", "3": "following"}
    assert (found["success"]["k"], found["success"]["n"]) == (2, 4)
    assert found["against_own_text"]["only_second"] == 1


def test_mcnemar_equals_the_exact_binomial_test():
    # 10 discordant pairs split 9 to 1: p = 2 (1 + 10) / 2^10, the textbook example of the exact test.
    first, second = [True] * 9 + [False] + [True] * 5, [False] * 9 + [True] + [True] * 5
    test = mcnemar(first, second)
    assert (test.both, test.only_first, test.only_second, test.neither) == (5, 9, 1, 0)
    assert test.p == pytest.approx(22 / 1024)
    assert mcnemar([True, False], [True, False]).p == 1


def test_paired_difference_is_narrower_than_the_scores_spread():
    first = [0.0, 10.0, 20.0, 30.0]
    interval = paired_difference(first, [value + 1 for value in first])
    assert (interval.mean, interval.low, interval.high) == (1, 1, 1)


def test_comparison_pairs_trials_by_seed():
    first = [{"seed": 1, "success": True, "ocr": 4}, {"seed": 2, "success": True, "ocr": 4}]
    second = [{"seed": 3, "success": True, "ocr": 0}, {"seed": 2, "success": False, "ocr": 2}]
    found = compared(first, second, ["ocr"])
    assert found["n"] == 1
    assert found["success"]["only_first"] == 1
    assert found["ocr"]["difference"] == -2


@pytest.mark.parametrize("split", ["in_domain", "open_world + in_domain"])
def test_runs_of_different_splits_are_not_paired(tmp_path, capsys, split):
    """The same seeds draw other scenes: refused before the first trial."""
    before = {"task": "math_match", "split": split, "policy": "p", "swap": False, "trials": [{"seed": 1}]}
    (tmp_path / "results.json").write_text(json.dumps(before))
    words = ["--split", "open_world", "--trials", "1", "--quiet", "--no-film", "--against", str(tmp_path)]
    assert main(["math_match", *words, "--out", str(tmp_path / "after")]) == 1
    complaint = capsys.readouterr().err
    assert f"is of split '{split}', this run of 'open_world'" in complaint
    assert "--split" in complaint
    assert not (tmp_path / "after" / "results.json").exists()
    with pytest.raises(AgainstError, match="other scenes"):
        against(before, before | {"split": "open_world"}, "before")
    for change, sentence in (
        ({"trials": before["trials"] * 2}, "several trials of one seed"),
        ({"simulation": False}, "a real robot"),
    ):
        (tmp_path / RESULTS_NAME).write_text(json.dumps(before | change))
        with pytest.raises(AgainstError, match=sentence):
            read_before(tmp_path, task=before["task"], split=before["split"])
    trials = [{"seed": 1, "success": True, "ocr": 4, "math": 2}]
    same = before | {"trials": trials}
    assert against(same, same, "before")["n"] == 1


@pytest.mark.slow
def test_forcing_the_right_reasoning_cures_a_forced_wrong_one(tmp_path, capsys):
    wrong = ["math_match", "--seed", "7", "--trials", "2", "--jobs", "1", "--quiet", "--no-film"]
    assert main([*wrong, "--out", str(tmp_path / "own"), "--attribute"]) == 0
    found = json.loads((tmp_path / "own" / "results.json").read_text())
    assert found["forced_correct"]["success"]["k"] == 2
    assert found["summary"]["agreement"]["k"] == 2
    assert "right reasoning forced: 2/2" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*wrong, "--force", "I should pick the left card.", "--attribute"])
