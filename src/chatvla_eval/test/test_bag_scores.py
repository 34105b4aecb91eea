# SPDX-License-Identifier: Apache-2.0
"""Bags without a rollout's marks: a person's notes, the simulator's resets, folders of bags, two policies."""

import json

import pytest

pytest.importorskip("rclpy")

from chatvla_control.contracts import Inference, Reasoning, ReasoningSource
from chatvla_control.robot_spec import robot_spec
from chatvla_eval.bags.notes import read_notes
from chatvla_eval.cli import main
from chatvla_eval.ros.bag_policies import compared_on_bags
from chatvla_eval.ros.policy_replay import BagInputs, _scores
from chatvla_eval.short_names import short_names
from chatvla_eval.tasks.example_scene import GOOD_TEXT, scene
from chatvla_policy.runtime.replay import Replayed

from .small_bags import START_S, scored, write_bag

NOTE = {
    "instruction": "Pick the card.",
    "equation": "3 + 4",
    "answer": "7",
    "cards": [["left", "12"], ["middle", "7"], ["right", "1"]],
    "picked": "7",
    "success": True,
}


TOY_NOTE = {
    "task": "toy_placement",
    "instruction": "Put the red car to the left of the blue box.",
    "relation": "left",
    "target": "Red  car",
    "reference": "blue box",
    "others": ["green duck"],
    "boxes": {"target": [100, 100, 200, 200], "reference": [400, 400, 600, 700], "goal": [300, 400, 400, 500]},
    "picked": "red car",
    "success": True,
}


def pointed(label, x1, y1, x2, y2):
    """Return a label with its rectangle as texts give them."""
    return f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


TOY_TEXT = (
    f"The toy is {pointed('red car', 100, 100, 200, 200)}. The reference is {pointed('blue box', 400, 400, 600, 700)}. "
    f"I should put the red car to the left of the blue box, at the {pointed('goal', 300, 400, 400, 500)}."
)


def test_notes_of_a_person_score_a_real_robots_bag(tmp_path, capsys):
    bag = write_bag(tmp_path / "monday", texts=((0.1, "noise"), (0.5, GOOD_TEXT), (1.6, "I should pick right card.")))
    second = NOTE | {"from_s": 1.0, "picked": "1", "success": False}
    (bag / "trials.json").write_text(json.dumps([NOTE | {"from_s": 0.3, "to_s": 1.0}, second]))
    code, results = scored(tmp_path / "out", bag)
    assert code == 0
    assert (results["simulation"], results["policy"], results["transport"]) == (False, "tiny", "bag")
    first, last = results["trials"]
    assert (first["text"], first["ocr"], first["math"], first["success"], first["picked"]) == (
        GOOD_TEXT,
        4,
        2,
        True,
        "7",
    )
    assert (last["success"], last["picked"], last["link"]) == (False, "1", "perception")
    assert "real robot" in capsys.readouterr().out


def test_notes_of_toys_score_a_real_robots_bag(tmp_path, capsys):
    elsewhere = TOY_TEXT.replace("(100,100),(200,200)", "(700,700),(800,800)")
    other = elsewhere.replace("put the red car", "put the green duck")
    bag = write_bag(tmp_path / "toys", texts=((0.2, TOY_TEXT), (0.8, elsewhere), (1.4, other)))
    notes = [
        TOY_NOTE | {"to_s": 0.6},
        TOY_NOTE | {"from_s": 0.6, "to_s": 1.2, "picked": "green duck", "success": False},
        TOY_NOTE | {"from_s": 1.2, "picked": "green duck", "success": False},
    ]
    (bag / "trials.json").write_text(json.dumps(notes))
    code, results = scored(tmp_path / "out", bag)
    assert code == 0, capsys.readouterr().err
    assert (results["task"], results["simulation"], results["complete"]) == ("toy_placement", False, True)
    told = [
        (trial["recognition"], trial["affordance"], trial["picked"], trial["chosen"], trial["link"])
        for trial in results["trials"]
    ]
    assert told == [
        (2, 1, "red car", "red car", ""),
        (1, 1, "green duck", "red car", "following"),
        (1, 0, "green duck", "green duck", "perception"),
    ]
    scene_of_first = {key: results["trials"][0][key] for key in ("relation", "target", "reference", "others")}
    assert scene_of_first == {
        "relation": "left",
        "target": "red car",
        "reference": "blue box",
        "others": ["green duck"],
    }
    assert "toy_placement · open_world · tiny [chatvla2] · real robot" in capsys.readouterr().out


def test_trials_go_by_the_simulators_resets_without_marks(tmp_path):
    truths = [
        scene(stamp_s=START_S + 0.1, trial=4, seed=400_001),
        scene(stamp_s=START_S + 0.9, trial=4, seed=400_001, placed="card_1", success=True),
        scene(stamp_s=START_S + 1.1, trial=5, seed=400_002),
    ]
    bag = write_bag(tmp_path / "sim", texts=((0.5, GOOD_TEXT), (1.1, "nothing")), truths=truths)
    _, results = scored(tmp_path / "out", bag)
    assert [trial["success"] for trial in results["trials"]] == [True, False]
    assert [trial["text"] for trial in results["trials"]] == [GOOD_TEXT, "nothing"]
    assert results["seed"] == 4


def test_folder_of_bags_becomes_one_table(tmp_path, capsys):
    for name in ("a", "b"):
        bag = write_bag(tmp_path / "bags" / name)
        (bag / "trials.json").write_text(json.dumps([NOTE]))
    _, results = scored(tmp_path / "out", tmp_path / "bags", more=["--report"])
    assert [(trial["index"], trial["bag"]) for trial in results["trials"]] == [(0, "a"), (1, "b")]
    assert results["summary"]["success"]["k"] == 2
    assert "a: tiny, 1/1" in capsys.readouterr().out
    assert "2/2 = 100%" in (tmp_path / "out" / "report.html").read_text()
    table = json.loads((tmp_path / "out" / "by_bag.json").read_text())
    assert (table["task"], table["commit"]) == ("math_match", results["commit"])
    assert [(row["bag"], row["simulation"], row["summary"]["success"]["k"]) for row in table["bags"]] == [
        ("a", False, 1),
        ("b", False, 1),
    ]
    assert table["bags"][0]["summary"]["ocr"]["mean"] == 4
    page = (tmp_path / "out" / "by_bag.md").read_text()
    assert "| a | tiny [chatvla2] | real robot | open_world | 1/1 [21%, 100%] | 4.00 [4.00, 4.00] |" in page


def test_bags_of_one_name_stay_apart_and_one_given_twice_counts_once(tmp_path):
    for week, right in (("first", True), ("second", False)):
        bag = write_bag(tmp_path / week / "monday")
        picked = "7" if right else "1"
        (bag / "trials.json").write_text(json.dumps([NOTE | {"picked": picked, "success": right}]))
    folders = [tmp_path / "first", tmp_path / "second", tmp_path / "first" / "monday"]
    _, results = scored(tmp_path / "out", *folders)
    told = [(trial["bag"], trial["success"]) for trial in results["trials"]]
    assert told == [("first/monday", True), ("second/monday", False)]
    rows = json.loads((tmp_path / "out" / "by_bag.json").read_text())["bags"]
    assert [(row["bag"], row["summary"]["success"]["k"]) for row in rows] == [("first/monday", 1), ("second/monday", 0)]


def test_names_take_as_many_folders_as_tell_bags_apart(tmp_path):
    folders = [tmp_path / name for name in ("a/x/run", "b/x/run", "b/y/run", "other")]
    assert short_names(folders) == ["a/x/run", "b/x/run", "y/run", "other"]


def test_bags_of_simulator_and_robot_do_not_mix(tmp_path, capsys):
    real = write_bag(tmp_path / "real")
    (real / "trials.json").write_text(json.dumps([NOTE]))
    simulated = write_bag(tmp_path / "sim", truths=[scene(stamp_s=START_S + 0.1, trial=4, seed=400_001)])
    assert scored(tmp_path / "out", real, simulated)[0] == 1
    assert "some bags are of the simulator and some of a real robot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("notes", "sentence"),
    [
        (None, "shows no trial"),
        ("{", "is no JSON"),
        ('[{"answer": "7"}]', "trial 0 lacks instruction"),
        (json.dumps([NOTE | {"answer": "9"}]), "no card shows answer '9'"),
        (json.dumps([NOTE | {"answer": "", "success": False}]), "no card shows answer ''"),
        (json.dumps([NOTE | {"success": "false"}]), "trial 0 has success 'false'; write true or false"),
        (json.dumps([NOTE | {"from_s": 5}, NOTE | {"from_s": 1}]), "trial 0 begins at 5.0 s and ends at 1.0 s"),
        (
            json.dumps([NOTE | {"task": "toy_sorting"}]),
            "trial 0 is of task 'toy_sorting'; notes are read of: math_match",
        ),
        ('[{"task": "toy_placement", "picked": ""}]', "trial 0 lacks instruction, relation, target, reference, boxes"),
        (json.dumps([TOY_NOTE | {"relation": "beside"}]), "has relation 'beside'; there are: left, right"),
        (json.dumps([TOY_NOTE | {"picked": "blue duck"}]), "no object is called picked 'blue duck'"),
        (json.dumps([TOY_NOTE | {"others": ["red car"]}]), "two objects of one name"),
        (json.dumps([TOY_NOTE | {"boxes": TOY_NOTE["boxes"] | {"goal": [9, 0, 5, 9]}}]), "has no box goal of four"),
        (json.dumps([TOY_NOTE | {"boxes": TOY_NOTE["boxes"] | {"goal": "wide"}}]), "trial 0 could not convert"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(tmp_path, capsys, notes, sentence):
    bag = write_bag(tmp_path / "bag")
    if notes is not None:
        (bag / "trials.json").write_text(notes)
    assert scored(tmp_path / "out", bag)[0] == 1
    assert sentence in capsys.readouterr().err


def test_comparison_of_two_policies_pairs_trials_and_bags():
    def run(chosen, ocr, error):
        trials = [
            {"bag": "a", "number": k, "chosen": c, "ocr": o} for k, (c, o) in enumerate(zip(chosen, ocr, strict=True))
        ]
        return {"trials": trials, "open_loop": {"a": error}}

    found = compared_on_bags(run([True, True], [4, 2], 0.2), run([True, False], [3, 1], 0.1))
    assert (found["trials"], found["chosen"]["both"], found["chosen"]["only_first"]) == (2, 1, 1)
    assert found["ocr"]["mean"] == -1
    assert found["open_loop"]["mean"] == pytest.approx(-0.1)


def test_noted_trial_without_an_end_ends_where_the_next_begins(tmp_path):
    (tmp_path / "trials.json").write_text(json.dumps([NOTE | {"from_s": 0}, NOTE | {"from_s": 2}]))
    notes = read_notes(tmp_path)
    assert [(note.from_s, note.to_s) for note in notes] == [(0.0, 2.0), (2.0, float("inf"))]


def test_trial_in_which_a_policy_said_nothing_counts_against_it(tmp_path):
    spec = robot_spec("arx_r5")
    inputs = BagInputs(tmp_path, spec, ("top",), "/chatvla/", truths=[(0.0, scene()), (10.0, scene()), (20.0, scene())])

    def answer(published_s, text):
        thought = Reasoning(
            id="x", text=text, stamp_s=0.0, source=ReasoningSource.GENERATED, policy="p", instruction=""
        )
        return Replayed(published_s=published_s, inference=Inference(reasoning=thought, chunk=None), planned=None)

    scores = _scores(inputs, [answer(12.0, ""), answer(13.0, GOOD_TEXT), answer(21.0, GOOD_TEXT)])
    assert [bool(trial["chosen"]) for trial in scores] == [False, True, True]
    assert [trial["text"] for trial in scores] == ["", GOOD_TEXT, GOOD_TEXT]


@pytest.mark.slow
def test_two_checkpoints_on_the_same_bag(tmp_path, capsys):
    from chatvla_policy.systems.untrained import save_untrained

    save_untrained(tmp_path / "one", robot="arx_r5", max_tokens=8)
    bag = write_bag(tmp_path / "bag", robot=True)
    (bag / "trials.json").write_text(json.dumps([NOTE]))
    words = ["--policy", str(tmp_path / "one"), "--policy", str(tmp_path / "one")]
    assert main(["--bag", str(bag), *words, "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "bags.json").read_text())
    assert [run["policy"] for run in found["policies"]] == ["one", "one"]
    assert [len(run["trials"]) for run in found["policies"]] == [1, 1]
    assert found["comparison"]["chosen"]["p"] == 1
    assert found["comparison"]["open_loop"]["mean"] == 0
    assert "second against first, 1 trials" in capsys.readouterr().out


@pytest.mark.slow
def test_policies_on_bags_of_one_name_write_beside_each_other_and_toys_are_scored(tmp_path, capsys):
    from chatvla_eval import replay_cli
    from chatvla_policy.systems.untrained import save_untrained

    save_untrained(tmp_path / "one" / "policy", robot="arx_r5", max_tokens=8)
    for week in ("first", "second"):
        bag = write_bag(tmp_path / week / "monday", robot=True)
        (bag / "trials.json").write_text(json.dumps([TOY_NOTE]))
    folders, policy = [str(tmp_path / week) for week in ("first", "second")], str(tmp_path / "one" / "policy")
    assert main(["--bag", *folders, "--policy", policy, "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "bags.json").read_text())
    names = ["first/monday", "second/monday"]
    assert (found["bags"], found["policies"][0]["policy"]) == (names, "one")
    assert (
        [trial["bag"] for trial in found["policies"][0]["trials"]] == list(found["policies"][0]["open_loop"]) == names
    )
    assert all((tmp_path / "out" / "0_one" / name / "replay.json").is_file() for name in names)
    assert replay_cli.main([f"{folders[0]}/monday", "--policy", policy, "--out", str(tmp_path / "replay")]) == 0
    assert "Put the red car to the left of the blue box. | recognition 0/2 affordance 0/1" in capsys.readouterr().out
