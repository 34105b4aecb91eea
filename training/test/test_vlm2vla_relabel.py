# SPDX-License-Identifier: Apache-2.0
"""Episodes as language: cuts by the motion, merged actions, questions of one moment each, what is left out."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from chatvla_control.cartesian import arm_models, cartesian_rows
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.vlm2vla.config import Vlm2VlaConfig
from chatvla_policy.vlm2vla.text_forms import actions_text, parse_actions
from chatvla_sim.benches import bench_robot
from chatvla_sim.toy_placement.instructions import RELATION_PHRASES
from chatvla_sim.toy_placement.reasoning import side_text
from chatvla_sim.toy_placement.relations import RELATIONS
from chatvla_sim.toy_placement.sorting_trial import draw_sorting_trial, side_of
from chatvla_training.data.episodes import DatasetError, EpisodeDataset
from chatvla_training.text.toy_phrases import ToyFacts, reasoning
from chatvla_training.vlm2vla.describe import AXES, direction_word, plan_text, step_texts, things_of, way_text
from chatvla_training.vlm2vla.language_data import question_answer
from chatvla_training.vlm2vla.relabel import RelabelSettings, main, relabel
from chatvla_training.vlm2vla.split import Merging, Part, actions_of, merged
from chatvla_training.vocabulary import tiny_tokenizer

from .vlm2vla_picks import FACTS, WAYS, lines, picks_set


@pytest.fixture(scope="module")
def picks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picks_set(tmp_path_factory.mktemp("picks"), facts=[{"pushes": 0}, {"pushes": 2}, {}, {"pushes": 1}])


@pytest.fixture(scope="module")
def published(picks: Path) -> Path:
    """Return the data asked from each part's first frame alone."""
    relabel(picks, picks.parent / "published", RelabelSettings(starts=1))
    return picks.parent / "published"


@pytest.fixture(scope="module")
def language(picks: Path) -> Path:
    relabel(picks, picks.parent / "language", RelabelSettings())
    return picks.parent / "language"


def row_of(entry: dict, moment: int = 0) -> int:
    """Return the row whose picture a question shows."""
    (name,) = entry["images"][moment].values()
    return int(name.split("-")[2])


def test_actions_of_no_length_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(tmp_path / "out"), "--limit", "0"])
    assert "argument --limit: '0' is no number above 0" in capsys.readouterr().err


def test_episode_is_cut_where_the_motion_turns(published: Path):
    (entry,) = lines(published, "subtasks")
    assert entry["subtasks"] == [
        "left arm: Move to the left card",
        "left arm: Lower to the left card",
        "left arm: Grasp the left card",
        "left arm: Lift the left card",
        "left arm: Move the left card to the board",
        "left arm: Release the left card",
    ]
    info = json.loads((published / "info.json").read_text())
    assert (info["open_m"], info["closed_m"]) == (pytest.approx(0.08, abs=0.009), pytest.approx(0.04, abs=1e-3))
    assert set(info["anchors"]) == {"left", "right"}


def test_actions_sum_to_the_way_and_say_the_gripper(published: Path):
    for entry, way in zip(lines(published, "actions"), WAYS, strict=True):
        actions = parse_actions(entry["actions"])
        # A gripper is told to close from the frame before it does, where the tool may have some of its way to go.
        np.testing.assert_allclose(actions[:, :3].sum(0), way or (0, 0, 0), atol=6e-3 if way else 0.016)
        assert np.linalg.norm(actions[:, :3], axis=1).max() <= 0.05 + 2e-3
    closes = lines(published, "actions")[2]
    assert parse_actions(closes["actions"])[-1, 3] == 0.0
    assert closes["plan"] == "Move slightly down. Close the gripper."


def test_plans_say_where_and_actions_lead_there_from_the_place_that_is_told(picks: Path, tmp_path: Path):
    relabel(picks, tmp_path / "short", RelabelSettings(merging=Merging(step_m=1, limit_m=1), decimals=2, where=True))
    entries, seen = lines(tmp_path / "short", "actions"), 0
    config = Vlm2VlaConfig(prompts="short", tell_pose=True, decimals=2)
    for entry in entries:
        way = parse_actions(entry["actions"])[:, :3].sum(axis=0)
        said = re.findall(r"([xyz]) (-?\d+) to (-?\d+): (\d+) (\w+)", entry["plan"])
        assert [axis for axis, *_ in said] == ["x", "y", "z"]
        start, end = (np.array([float(item[k]) / 100 for item in said]) for k in (1, 2))
        np.testing.assert_allclose(entry["pose"][:3], start, atol=1e-6)
        np.testing.assert_allclose(start + way, end, atol=1e-6)
        for (*_, distance, word), step, (_, positive, negative) in zip(said, way, AXES, strict=True):
            assert float(distance) / 100 == pytest.approx(abs(step))
            assert word == ("none" if abs(step) < 1e-6 else positive if step > 0 else negative)
            seen += word != "none"
        found = question_answer(entry, config, robot_spec("arx_r5"), 0)
        assert found is not None
        question, answer = found
        assert all(re.fullmatch(r"-?0\.\d\d|[01]\.0", number) for number in re.findall(r"-?\d[\d.]*\d", answer))
        assert "-0.00" not in question + answer
    assert seen >= 4
    reach, plans = lines(tmp_path / "short", "reach"), lines(tmp_path / "short", "plan")
    assert {entry["subtask"] for entry in reach} == {"left arm: Move to the left card"}
    assert all({**entry, "kind": "plan"} in plans for entry in reach)
    assert question_answer(reach[0], config, robot_spec("arx_r5"), 0) == question_answer(
        {**reach[0], "kind": "plan"}, config, robot_spec("arx_r5"), 0
    )
    ways = lines(tmp_path / "short", "way")
    assert len(ways) == 16 * len({entry["episode"] for entry in entries})
    for entry in ways:
        question, answer = question_answer(entry, config, robot_spec("arx_r5"), 0) or ("", "")
        start, end = (np.array([int(value) for value in entry[key].split(", ")]) for key in ("start", "end"))
        assert question == f"Way: {entry['start']} to {entry['end']}"
        assert not entry["images"]
        assert answer == way_text(start / 100, end / 100)
    assert json.loads((tmp_path / "short" / "info.json").read_text())["decimals"] == 2


def test_episodes_with_pushes_are_left_out_unless_asked_for(picks: Path, language: Path, tmp_path: Path):
    assert {entry["episode"] for split in ("train", "val") for entry in lines(language, "plan", split=split)} == {0, 2}
    info = json.loads((language / "info.json").read_text())
    assert info["left_out"]["episodes in which the arm was pushed (--pushed takes them)"] == 2
    assert info["episodes"] == {"train": 1, "val": 1}
    assert main([str(picks), "--out", str(tmp_path / "all"), "--pushed"]) == 0
    assert json.loads((tmp_path / "all/info.json").read_text())["episodes"] == {"train": 2, "val": 2}
    pushed = picks_set(tmp_path, facts=[{"pushes": 1}, {"pushes": 1}])
    with pytest.raises(DatasetError, match="--pushed"):
        relabel(pushed, tmp_path / "none", RelabelSettings())


def test_picture_place_and_rest_of_the_way_are_of_one_moment(picks: Path, language: Path):
    spec = robot_spec("arx_r5")
    tools = cartesian_rows(spec, EpisodeDataset(picks, horizon=1).states_ND[:100].astype(float))[:, :3]
    asked = lines(language, "actions")
    assert len(asked) > len(WAYS)
    for entry in asked:
        row = row_of(entry)
        np.testing.assert_allclose(entry["pose"][:3], tools[row], atol=1e-3)
        end = tools[row] + parse_actions(entry["actions"])[:, :3].sum(0)
        step = next(k for k, step in enumerate(lines(language, "subtasks")[0]["subtasks"]) if step == entry["subtask"])
        wanted = tools[0] + np.sum([way or (0, 0, 0) for way in WAYS[: step + 1]], axis=0)
        np.testing.assert_allclose(end, wanted, atol=6e-3)


def test_the_rest_of_a_part_is_asked_for_from_later_frames_too(language: Path):
    asked = Counter(entry["subtask"] for entry in lines(language, "actions"))
    assert asked["left arm: Move to the left card"] > 1
    # A gripper that has begun to close is no start.
    assert asked["left arm: Grasp the left card"] == 1
    assert len(lines(language, "subtasks")) > 1


def test_auxiliary_questions_follow_the_motion(published: Path):
    first = [entry["direction"] for entry in lines(published, "direction")[:3]]
    assert first == ["forward", "left", "none"]
    verdicts = lines(published, "completion")
    assert verdicts[0]["success"] is True
    assert verdicts[-1]["next"] == "none"
    assert all(
        (published / "images" / name).is_file()
        for entry in verdicts
        for view in entry["images"]
        for name in view.values()
    )


def test_completions_show_two_moments_and_none_twice_with_both_answers(tmp_path: Path):
    # Frames so rare that the short closing of the gripper lies between two of them.
    source = picks_set(tmp_path, facts=[{}] * 8, every=17)
    relabel(source, tmp_path / "language", RelabelSettings())
    verdicts = lines(tmp_path / "language", "completion")
    assert {entry["success"] for entry in verdicts} == {True, False}
    seen: dict[tuple, set[bool]] = {}
    for entry in verdicts:
        before, after = row_of(entry), row_of(entry, 1)
        assert before != after
        seen.setdefault((entry["episode"], entry["subtask"], before, after), set()).add(entry["success"])
        if entry["success"] and entry["subtask"].endswith("Lower to the left card"):
            assert before <= 34
            assert after >= 40
    assert all(len(answers) == 1 for answers in seen.values())


def test_each_episode_ends_with_nothing_left_to_do(language: Path):
    (end,) = lines(language, "end")
    assert (end["arm"], row_of(end)) == ("left", 95)


def test_no_action_of_a_fast_way_is_longer_than_the_limit():
    # 2 m/s: 8 cm between two samples.
    way = np.linspace([0.0, 0.0, 0.2], [1.0, 0.2, 0.2], 26)
    found = actions_of(way, np.ones(26, bool), rate_hz=50.0, merging=Merging())
    assert np.linalg.norm(found[:, :3], axis=1).max() <= 0.0515
    np.testing.assert_allclose(found[:, :3].sum(0), [1.0, 0.2, 0.0], atol=1e-3)


def test_merging_keeps_the_sum_and_the_limits():
    steps = np.tile([0.004, -0.001, 0.0, 1.0], (20, 1))
    steps[-1, 3] = 0.0
    found = merged(steps, Merging())
    np.testing.assert_allclose(found[:, :3].sum(0), steps[:, :3].sum(0), atol=5e-4)
    assert (np.abs(found[:-2, 0]) >= 0.025).all()
    assert found[-1, 3] == 0.0
    back = merged(np.array([[0.01, 0, 0, 1.0], [-0.01, 0, 0, 1.0]]), Merging())
    assert len(back) == 2


def test_a_row_that_says_nothing_is_left_out():
    rest = np.array([[0.0, 0, 0, 1.0], [0.0, 0, 0, 0.0]])
    assert merged(rest, Merging(), before=True).tolist() == [[0, 0, 0, 0]]
    assert merged(rest[:1], Merging(), before=True).tolist() == [[0, 0, 0, 1]]
    assert len(merged(rest, Merging())) == 2


def test_words_of_a_displacement():
    assert direction_word(-0.03, 1) == "right"
    assert direction_word(0.02, 2) == "none"
    text = plan_text(np.array([0.012, -0.08, -0.03]), before=True, after=True)
    assert text == "Move right and down, slightly forward. Gripper stays open."


def test_words_of_sorting_follow_the_toys_in_their_order():
    labels = [thing.label for thing in draw_sorting_trial(split="in_domain", seed=0).things]
    animal, block = (next(label for label in labels if side_of(label) == side) for side in ("left", "right"))
    facts = {"task": "toy_sorting", "toys": [animal, block]}
    assert things_of(facts) == ((animal, "left side"), (block, "right side"))
    phases = ("across", "down", "close", "up", "across", "down", "open", "up") * 2 + ("across",)
    holding = (False, False, True, True, True, True, False, False) * 2 + (False,)
    parts = [
        Part(arm=0, phase=phase, start=k, stop=k + 1, holding=held)
        for k, (phase, held) in enumerate(zip(phases, holding, strict=True))
    ]
    texts = step_texts(parts, things_of(facts))
    assert texts[:2] == [f"Move to the {animal}", f"Lower to the {animal}"]
    assert texts[5:10] == [
        f"Lower the {animal} to the left side",
        f"Release the {animal}",
        "Retreat from the left side",
        f"Move to the {block}",
        f"Lower to the {block}",
    ]
    assert texts[13:] == [
        f"Lower the {block} to the right side",
        f"Release the {block}",
        "Retreat from the right side",
        "Move back",
    ]
    assert things_of(FACTS) == (("left card", "board"),)


PICK = ("across", "down", "close", "up", "across", "down", "open", "up")
HELD = (False, False, True, True, True, True, False, False)
TOY = {"task": "toy_placement", "target": "red car", "reference": "blue box"}


def toy_steps(relation: str) -> list[str]:
    """Return the subtasks of one toy that is placed."""
    parts = [
        Part(arm=0, phase=phase, start=k, stop=k + 1, holding=held)
        for k, (phase, held) in enumerate(zip(PICK, HELD, strict=True))
    ]
    return step_texts(parts, things_of(TOY | {"relation": relation}))


def test_words_of_placing_a_toy_say_the_relation():
    steps = {relation: toy_steps(relation) for relation in RELATIONS}
    assert all(texts[:4] == steps["left"][:4] for texts in steps.values())
    assert steps["left"][:4] == ["Move to the red car", "Lower to the red car", "Grasp the red car", "Lift the red car"]
    # A plan is asked for by its step alone: where the toy goes must stand there.
    assert len({tuple(texts[4:]) for texts in steps.values()}) == len(RELATIONS)
    assert {relation: texts[4] for relation, texts in steps.items()} == {
        "left": "Move the red car to the left of the blue box",
        "right": "Move the red car to the right of the blue box",
        "front": "Move the red car to the place in front of the blue box",
        "behind": "Move the red car to the place behind the blue box",
        "on top": "Move the red car to the top of the blue box",
        "below": "Move the red car to the place below the blue box",
    }
    assert steps["on top"][5:] == [
        "Lower the red car to the top of the blue box",
        "Release the red car",
        "Retreat from the top of the blue box",
    ]
    assert things_of({"task": "toy_placement", "target": "red car", "reference": "blue box"}) == (
        ("red car", "blue box"),
    )
    assert things_of({}) == (("object", "goal"),)


def test_the_toys_vocabulary_writes_every_text_of_a_relabelled_toy_and_none_is_long():
    tokenizer, spec = tiny_tokenizer(("toy_placement",)), robot_spec(bench_robot("toy_placement"))
    config = Vlm2VlaConfig(prompts="short", tell_pose=True, decimals=2)
    place, way, shares = np.array([0.307, -0.001, 0.445]), np.array([0.149, -0.075, -0.09]), (0.36, 0.48)
    boxes = {}
    for label in ("red car", "blue box", "goal"):
        sides = [side_text(share, side) for side, share in enumerate((*shares, shares[0] + 0.05, shares[1] + 0.1))]
        corners = "({},{}),({},{})".format(*sides)
        boxes[label] = f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>{corners}<|box_end|>"
    for relation in RELATIONS:
        facts, steps = TOY | {"relation": relation}, toy_steps(relation)
        thought = reasoning(ToyFacts(target="red car", reference="blue box", relation=relation, boxes=boxes))
        plan = plan_text(way, before=True, after=False, way=way_text(place, place + way))
        assert plan == "x 31 to 46: 15 forward, y 0 to -8: 8 right, z 44 to 36: 8 down. Close the gripper."
        shared = {"task": f"Put the red car {RELATION_PHRASES[relation]} the blue box.", "subtask": steps[4]}
        shared |= {"pose": [*place, 1.0], "arm": spec.arms[0].name}
        entries = [
            {**shared, "kind": "subtasks", "subtasks": steps, "thought": thought, "facts": facts},
            {**shared, "kind": "plan", "plan": plan},
            {**shared, "kind": "actions", "plan": plan, "actions": actions_text(np.array([[*way, 0.0]]), decimals=2)},
            {**shared, "kind": "direction", "axis": "y", "direction": direction_word(-0.075, 1)},
            {**shared, "kind": "completion", "next": steps[5], "success": False},
        ]
        for entry in entries:
            for draw in range(4):
                question, answer = question_answer(entry, config, spec, draw)
                for text in (question, answer):
                    ids = tokenizer.encode(text).ids
                    assert tokenizer.decode(ids, skip_special_tokens=False) == text
                assert len(tokenizer.encode(answer).ids) < config.max_new_tokens
                assert len(tokenizer.encode(question).ids) < 128


def test_arms_of_the_robot_are_those_of_the_data(language: Path):
    names = {entry["arm"] for entry in lines(language, "actions")}
    assert names <= {arm.name for arm in arm_models(robot_spec("arx_r5"))}
