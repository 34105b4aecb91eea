# SPDX-License-Identifier: Apache-2.0
"""What a rollout asked for is said of its bag's scores: forced texts, splits, swaps, also of several in one bag."""

from dataclasses import replace

import pytest

pytest.importorskip("rclpy")

from chatvla_control.contracts import ReasoningSource
from chatvla_eval.demonstrations import DEMONSTRATION_NOTE
from chatvla_eval.session import TrialSetup
from chatvla_eval.tasks.example_scene import GOOD_TEXT

from .small_bags import rollouts, scored, write_bag

FORCED = "I should pick right card."
OPEN, IN = (TrialSetup(index=0, split=split, seed=seed) for split, seed in (("open_world", 100_000), ("in_domain", 0)))


def test_a_forced_text_is_not_the_policys_own(tmp_path, capsys):
    asked = [replace(OPEN, forced_reasoning=FORCED), replace(OPEN, index=1, seed=100_001, forced_reasoning=FORCED)]
    bag = write_bag(tmp_path / "forced", **rollouts(*asked))
    _, results = scored(tmp_path / "out", bag)
    assert (results["forced_reasoning"], results["force_correct"], results["split"]) == (FORCED, False, "open_world")
    assert [trial["text"] for trial in results["trials"]] == [FORCED, FORCED]
    assert f"forced reasoning: {FORCED}" in capsys.readouterr().out
    assert f"forced: forced reasoning: {FORCED}" in (tmp_path / "out" / "by_bag.md").read_text()
    correct = write_bag(tmp_path / "correct", **rollouts(replace(OPEN, force_correct=True, forced_reasoning=GOOD_TEXT)))
    _, results = scored(tmp_path / "right", correct)
    assert (results["forced_reasoning"], results["force_correct"]) == ("", True)
    # Without a mark, the text itself says that it was forced.
    plain = rollouts(OPEN) | {"marks": ()}
    for source, told in ((ReasoningSource.FORCED, GOOD_TEXT), (ReasoningSource.GENERATED, "")):
        bag = write_bag(tmp_path / source.name, **plain, source=source)
        assert scored(tmp_path / f"out_{source.name}", bag)[1]["forced_reasoning"] == told


def test_rollouts_in_one_bag_keep_what_each_was_asked(tmp_path, capsys):
    bag = write_bag(tmp_path / "two", **rollouts(OPEN, replace(IN, swap=True, forced_reasoning=FORCED)))
    _, results = scored(tmp_path / "out", bag, more=["--report"])
    assert results["split"] == "open_world + in_domain"
    assert results["forced_reasoning"] == f"(the policy's own text) + {FORCED}"
    assert (results["swap"], results["demonstration_scenes"]) == (True, True)
    told = [(trial["index"], trial["split"], trial["swap"], trial["forced_reasoning"]) for trial in results["trials"]]
    assert told == [(0, "open_world", False, ""), (1, "in_domain", True, FORCED)]
    table = capsys.readouterr().out
    assert "seeds 1, 0" in table
    for place in (table, (tmp_path / "out" / "report.html").read_text()):
        assert "cards swapped against the same seeds in 1 of 2 trials" in place
        assert DEMONSTRATION_NOTE in place


@pytest.mark.parametrize("missing", ["end", "beginning"])
def test_trial_that_the_bag_does_not_hold_whole_is_none(tmp_path, capsys, missing):
    content = rollouts(*(TrialSetup(index=k, split="open_world", seed=k) for k in range(2)))
    if missing == "end":
        content["marks"] = content["marks"][:-1]
    else:
        # The latched mark of the first trial's beginning was heard half a minute later, with a truth of that time.
        content["marks"][0][1]["stamp_s"] -= 30.0
    bag = write_bag(tmp_path / "bag", **content)
    code, found = scored(tmp_path / "out", bag)
    assert (code, [trial["seed"] for trial in found["trials"]]) == (0, [0 if missing == "end" else 1])
    content["marks"] = content["marks"][:1]
    assert scored(tmp_path / "none", write_bag(tmp_path / "only", **content))[0] == 1
    assert "no trial from its beginning to its end; record before the rollout begins" in capsys.readouterr().err


def test_tasks_in_one_bag_are_refused(tmp_path, capsys):
    first, second = rollouts(OPEN, IN), rollouts(OPEN, IN, task="toy_placement")
    bag = write_bag(tmp_path / "mixed", **first | {"truths": first["truths"][:3] + second["truths"][3:]})
    assert scored(tmp_path / "out", bag)[0] == 1
    assert "holds trials of several tasks, math_match, toy_placement; record each task" in capsys.readouterr().err
