# SPDX-License-Identifier: Apache-2.0
"""Counterfactual replay: the expert flips with its text, an untrained checkpoint does not; doses say what they say."""

import json

import numpy as np
import pytest

from chatvla_eval.cli import main
from chatvla_eval.counterfactual.command import write
from chatvla_eval.counterfactual.doses import BASE, DOSE_NAMES, SWAPPED, dose_texts
from chatvla_eval.counterfactual.heading import STAYS, heading, path_distance_m
from chatvla_eval.counterfactual.summary import comparison, markdown, summary
from chatvla_eval.demonstrations import DEMONSTRATION_NOTE, DEMONSTRATION_WARNING
from chatvla_eval.tasks import task_by_name
from chatvla_eval.tasks.example_scene import scene

TRUTH = scene()
OTHER = TRUTH.objects[0]


def frame(*, base="card_1", swapped="card_0", floor=(1.0, 3.0), seed=1):
    doses = {name: {"heading": "card_1", "divergence_mm": 2.0} for name in DOSE_NAMES}
    doses[SWAPPED] = {"heading": swapped, "divergence_mm": 50.0}
    return {
        "seed": seed,
        "target": "card_1",
        "other": "card_0",
        "own": {"heading": "card_1"},
        BASE: {"heading": base},
        "floor_mm": list(floor),
        "between_objects_mm": 60.0,
        "doses": doses,
    }


def test_doses_run_from_the_same_content_to_the_other_cards_reasoning():
    texts = dose_texts(TRUTH, OTHER)
    scored = {name: task_by_name("math_match").score(text, TRUTH) for name, text in texts.items()}
    assert tuple(texts) == (BASE, *DOSE_NAMES)
    assert {name for name, one in scored.items() if one.choice == "card_0"} == {"other choice", SWAPPED}
    assert {name for name, one in scored.items() if one.computed} == {BASE, "paraphrase", "no choice", "other choice"}
    assert scored["no choice"].choice == ""
    assert (scored["paraphrase"].measures, scored[BASE].measures) == ({"ocr": 4, "math": 2},) * 2
    assert texts["paraphrase"] != texts[BASE]


def test_heading_is_the_nearest_reference_and_no_motion_is_nobodys():
    still = np.zeros((10, 2, 3))
    toward = still.copy()
    toward[:, 0, 1] = np.linspace(0, 0.2, 10)
    references = {"card_0": (toward,), "card_1": (-toward,), STAYS: (still,)}
    assert heading(0.8 * toward, references) == "card_0"
    assert heading(-0.6 * toward, references) == "card_1"
    assert heading(0.1 * toward, references) == STAYS
    assert path_distance_m(toward, still) == pytest.approx(0.1)


def test_a_motion_that_begins_later_heads_where_it_goes_and_one_that_hardly_begins_is_nobodys():
    still = np.zeros((10, 2, 3))
    quick = still.copy()
    quick[:, 0, 1] = np.linspace(0, 0.2, 10)
    references = {"card_0": (quick,), "card_1": (-quick,), STAYS: (still,)}
    for late, expected in ((4, "card_0"), (9, STAYS)):
        begun = np.concatenate([still[:late], quick[: 10 - late]])
        assert heading(begun, references) == expected
        assert heading(-begun, references) == expected.replace("0", "1")


def test_flip_needs_both_texts_followed():
    frames = [frame(), frame(base="card_0"), frame(swapped="card_1"), frame(swapped=STAYS)]
    found = summary(frames)
    assert (found["flip"]["k"], found["flip"]["n"]) == (1, 4)
    assert found["floor_mm"]["mean"] == 2.0
    assert found["doses"][SWAPPED]["divergence_mm"]["mean"] == 50.0
    assert found["doses"]["paraphrase"]["target"]["k"] == 4
    test = comparison([frame(), frame()], [frame(swapped="card_1"), frame()])
    assert (test["only_first"], test["both"]) == (1, 1)


def test_scenes_of_the_demonstrations_are_named(tmp_path, capsys):
    for split, seed, warned in (("in_domain", "4", 1), ("in_domain", "5", 0), ("open_world", "4", 0)):
        words = ["--policy", str(tmp_path), "--split", split, "--seed", seed, "--frames", "1", "--quiet"]
        assert main(["counterfactual", *words, "--out", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().err.count(DEMONSTRATION_WARNING) == warned


def test_figures_are_there_only_once_plots_and_pages_are(tmp_path):
    found = {"policy": "tiny", "privileged": False, "frames": [frame()], "summary": summary([frame()])}
    results = {"task": "math_match", "split": "in_domain", "seed": 4, "commit": "c", "frames_asked": 1}
    results |= {"policies": [found], "demonstration_scenes": True}
    obstacle = tmp_path / "counterfactual.html"
    obstacle.mkdir()
    with pytest.raises(OSError, match=obstacle.name):
        write(tmp_path, results)
    assert not (tmp_path / "counterfactual.json").exists()
    obstacle.rmdir()
    assert DEMONSTRATION_NOTE in write(tmp_path, results)
    assert DEMONSTRATION_NOTE not in markdown(results | {"demonstration_scenes": False})
    assert json.loads((tmp_path / "counterfactual.json").read_text()) == results


@pytest.mark.slow
def test_expert_flips_every_time_and_its_paraphrase_changes_nothing(tmp_path, capsys):
    words = ["--policy", "expert", "--frames", "4", "--seed", "3", "--jobs", "1", "--quiet", "--out", str(tmp_path)]
    assert main(["counterfactual", *words]) == 0
    found = json.loads((tmp_path / "counterfactual.json").read_text())["policies"][0]
    assert found["privileged"]
    assert found["summary"]["flip"]["k"] == 4
    assert found["summary"]["floor_mm"]["mean"] == 0
    assert found["summary"]["doses"]["paraphrase"]["divergence_mm"]["mean"] == 0
    assert found["summary"]["doses"][SWAPPED]["other"]["k"] == 4
    assert "4/4 = 100%" in capsys.readouterr().out
    assert (tmp_path / "headings.svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_untrained_checkpoint_heads_nowhere_and_two_policies_are_compared(tmp_path):
    from chatvla_policy.systems.untrained import save_untrained

    save_untrained(tmp_path / "random", robot="arx_r5", max_tokens=96)
    words = ["--policy", "expert", "--policy", str(tmp_path / "random"), "--frames", "2", "--resamples", "1"]
    assert main(["counterfactual", *words, "--jobs", "1", "--quiet", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "counterfactual.json").read_text())
    assert (found["seed"], found["demonstration_scenes"]) == (100, False)
    expert, random = found["policies"]
    assert random["summary"]["flip"]["k"] == 0
    assert {one["heading"] for one in random["frames"][0]["doses"].values()} == {STAYS}
    assert random["summary"]["floor_mm"]["mean"] > 0
    assert found["comparison"]["only_first"] == expert["summary"]["flip"]["k"] == 2
