# SPDX-License-Identifier: Apache-2.0
"""Toy scenes for training: what they may show, what is said of them, their dense labels; each recipe takes steps."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from chatvla_control.kinematics import pose_matrix, rotation_xyz
from chatvla_eval.tasks import task_by_name
from chatvla_eval.tasks.toy_placement import stated_boxes, stated_placement
from chatvla_policy.checkpoint import load_checkpoint
from chatvla_policy.processing.images import ImageConfig
from chatvla_policy.processing.tokens import TextCodec
from chatvla_sim.toy_placement.bench import ToyPlacementBench
from chatvla_sim.toy_placement.instructions import OTHER_PHRASES, PHRASINGS, RELATION_PHRASES
from chatvla_sim.toy_placement.kinds import KINDS
from chatvla_sim.toy_placement.motions import ToyMotions
from chatvla_sim.toy_placement.objects import DATA_PARTS, HELD_OUT_KINDS, kind_of, object_part
from chatvla_sim.toy_placement.relations import is_fulfilled
from chatvla_sim.toy_placement.trial import draw_trial
from chatvla_training.demos.collect import collect
from chatvla_training.demos.disturbance import DisturbanceSettings
from chatvla_training.demos.episode import DemoSettings
from chatvla_training.recipe import RecipeError, changed
from chatvla_training.recipes import PLAN_DEMOS, PLANS, find_recipe
from chatvla_training.synthetic.sources import open_source
from chatvla_training.synthetic.toy_facts import imagined_scene, matrices, relation_between, scene_boxes, scene_facts
from chatvla_training.synthetic.toy_pool import ToyPool, arm_anywhere
from chatvla_training.synthetic.toy_sources import TOY_SOURCES
from chatvla_training.synthetic.toy_trials import crowd_trial, image_text_toy_trial
from chatvla_training.text import toy_phrases
from chatvla_training.text.toy_questions import short_dialogue, told_dialogue, toy_dialogue
from chatvla_training.toy_objectives import SPREAD, ToyCollate, ToyLabels, lying
from chatvla_training.toy_words import KIND_NAMES
from chatvla_training.train import planned
from chatvla_training.training_run import train_recipe
from chatvla_training.vocabulary import tasks_of, tiny_tokenizer

CONFIG = ImageConfig(width=336, height=252)


@cache
def texts_about_scenes(count: int) -> list[tuple[str, str]]:
    """Return question and answer of every kind about `count` scenes, without drawing them."""
    rng = random.Random(1)
    return [
        pair
        for seed in range(count)
        for dialogue in (toy_dialogue, short_dialogue, told_dialogue)
        for pair in dialogue(scene_facts(imagined_scene(image_text_toy_trial(seed))), rng)
    ]


def test_no_held_out_object_is_ever_in_a_scene() -> None:
    shown = {
        thing.label
        for seed in range(200)
        for draw in (image_text_toy_trial, crowd_trial)
        for thing in draw(seed).things
    }
    assert {object_part(label) for label in shown} == set(DATA_PARTS["image_text"])
    trials = [draw_trial(split="open_world", seed=seed) for seed in range(300)]
    marked = [t for t in trials if {"never_seen_object", "never_seen_kind"} & set(t.subsets)]
    unseen = {t.label for trial in marked for t in trial.things[:2] if object_part(t.label) == "held_out"}
    assert len(unseen) > 15
    assert not unseen & shown


def test_no_instruction_of_any_part_and_no_held_out_word_is_in_a_dialogue() -> None:
    said = {text for pair in texts_about_scenes(80) for text in pair}
    patterns = [
        re.compile(re.escape(sentence).replace(r"\{t\}", ".+").replace(r"\{r\}", ".+").replace(r"\{o\}", ".+"))
        for part in PHRASINGS.values()
        for sentence, _ in part
    ]
    questions = {question for question, _ in texts_about_scenes(80)}
    assert not [question for question in questions if any(pattern.fullmatch(question) for pattern in patterns)]
    words = {word.lower() for text in said for word in re.findall(r"[A-Za-z]+", text)}
    assert not words & (HELD_OUT_KINDS | {"want", "look", "could", "please"})


def test_every_explanation_points_and_places_rightly() -> None:
    """The scores of policies find target, reference, relation and goal of a trial's own wish in the answer."""
    task, bench = task_by_name("toy_placement"), ToyPlacementBench()
    scored = 0
    for seed in range(12):
        trial = image_text_toy_trial(seed)
        truth = bench.show(trial)
        facts = scene_facts(imagined_scene(trial))
        goal = facts.goal(*facts.asked)
        boxes = {thing.label: thing.box for thing in facts.things} | {"goal": goal}
        wish = toy_phrases.ToyFacts(
            target=facts.asked[0], reference=facts.asked[1], relation=facts.asked[2], boxes=boxes
        )
        assert task.score(toy_phrases.reasoning(wish), truth).measures == {"recognition": 2, "affordance": 1}
        scored += 1
    bench.close()
    assert scored == 12


def test_explanations_answer_what_was_asked() -> None:
    explained = 0
    for question, answer in texts_about_scenes(80):
        boxes = [box.label for box in stated_boxes(answer)]
        if boxes[-1:] != ["goal"] or len(boxes) != 3:
            continue
        explained += 1
        placed = stated_placement(answer, boxes[:2])
        assert [placed.toy, placed.reference] == boxes[:2], answer
        asked = [
            name
            for words in (RELATION_PHRASES, OTHER_PHRASES)
            for name, w in words.items()
            if re.search(rf" {w} (the|it)\b", question)
        ]
        assert placed.relation in asked, (question, answer)
    assert explained > 30


def test_the_reference_often_stands_before_the_toy() -> None:
    first = {True: 0, False: 0}
    for question, answer in texts_about_scenes(80):
        boxes = [box.label for box in stated_boxes(answer)]
        if boxes[-1:] == ["goal"] and len(boxes) == 3:
            first[question.rindex(boxes[1]) < question.rindex(boxes[0])] += 1
    assert min(first.values()) > 0.25 * sum(first.values())


def test_questions_hold_every_word_of_open_world_phrasings_and_of_no_held_out_one() -> None:
    """What robot data never says is said somewhere: a word that no text uses keeps random weights."""
    asked = {word for question, _ in texts_about_scenes(80) for word in re.findall(r"[A-Za-z]+", question)}

    def words(part: str) -> set[str]:
        return {word for sentence, _ in PHRASINGS[part] for word in re.findall(r"[A-Za-z]+", sentence)} - set("tro")

    assert words("open_world") - words("robot") <= asked
    assert not (words("held_out") - words("open_world") - words("robot")) & (asked - {"stand", "for", "then"})


def test_relations_are_told_as_the_bench_judges_them() -> None:
    seen = set()
    for seed in range(60):
        scene = imagined_scene(image_text_toy_trial(seed))
        by_label = {t.label: m for t, m in zip(scene.trial.things, matrices(scene), strict=True)}
        for first, pose in by_label.items():
            for second, other in by_label.items():
                told = "" if first == second else relation_between(first, second, by_label, scene.trial.rack)
                if told in ("left", "right", "front", "behind"):
                    x, y, _ = pose[:3, 3] - other[:3, 3]
                    assert {"left": y > 0, "right": y < 0, "front": x < 0, "behind": x > 0}[told]
                    seen.add(told)
    assert seen == {"left", "right", "front", "behind"}
    size = (0.1, 0.1, 0.06)
    low, high = (pose_matrix(np.eye(3), np.array([0.5, 0.0, z])) for z in (0.032, 0.086))
    assert is_fulfilled("on top", high, (0.044, 0.044, 0.044), low, size, None)
    assert relation_between("red cube", "blue box", {"red cube": high, "blue box": low}, None) == "on top"


def test_labels_lie_where_the_things_are_seen_and_move_with_the_picture() -> None:
    source = open_source("toys_crowds", 3)
    scenes = [source.sample(index, draw) for index, draw in ((0, 0), (1, 5))]
    assert scenes[0].shift_px != scenes[1].shift_px
    batch = ToyCollate(CONFIG)(scenes)
    assert tuple(batch.kinds_P.shape) == (2 * 24 * 18,)
    for number, scene in enumerate(scenes):
        part = slice(number * 432, (number + 1) * 432)
        kinds = {KIND_NAMES[value - 1] for value in batch.kinds_P[part].tolist() if value}
        names = {thing.label.split()[1] for thing in scene.trial.things}
        assert kinds <= names
        assert len(kinds) >= len(names) - 1
        middle = torch.stack([batch.columns_P[part] + 0.5, batch.rows_P[part] + 0.5], 1) / torch.tensor([24.0, 18.0])
        shown, boxes = batch.kinds_P[part] > 0, batch.boxes_P4[part]
        inside = ((middle > boxes[:, :2] - 0.03) & (middle < boxes[:, 2:] + 0.03)).all(1)
        assert inside[shown].all(), "a patch is labelled with a thing that is elsewhere"
        assert (boxes[~shown] == 0).all()


def test_tokens_say_where_a_rectangle_lies_from_the_pictures_middle_and_how_its_thing_is_turned() -> None:
    boxes_P4 = torch.tensor([[0.4, 0.45, 0.6, 0.55], [0.9, 0.8, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    kinds_P, turns_P = torch.tensor([1, 2, 0]), torch.tensor([0.3, -0.15, 0.0])
    said_M5 = lying(ToyLabels(kinds_P=kinds_P, colours_P=kinds_P, boxes_P4=boxes_P4, turns_P=turns_P))
    torch.testing.assert_close(said_M5[0], torch.tensor([0.0, 0.0, 0.2, 0.1, 0.3]) / torch.tensor(SPREAD))
    torch.testing.assert_close(said_M5[1], torch.tensor([0.45, 0.4, 0.1, 0.2, -0.15]) / torch.tensor(SPREAD))
    assert bool(said_M5[2].isnan().all())


def test_a_hidden_thing_is_not_spoken_of() -> None:
    scene = ToyPool("trials", 3, None).scene(0)
    label = scene.trial.things[0].label
    assert label in {thing.label for thing in scene_facts(scene).things}
    hidden = np.where(scene.seen == 1, 0, scene.seen)
    assert label not in {thing.label for thing in scene_facts(replace(scene, seen=hidden)).things}


def test_a_held_toy_is_held_as_the_expert_holds_it() -> None:
    bench = ToyPlacementBench()
    motions = ToyMotions(bench.spec)
    for seed in range(6):
        trial, turn = image_text_toy_trial(seed), 0.4 - 0.15 * seed
        kind = KINDS[kind_of(trial.target.label)]
        joints, middle = arm_anywhere(bench.spec, np.random.default_rng(seed), turn, kind)
        assert middle is not None
        tool = motions.tool_pose(joints)
        across = rotation_xyz(0, 0, turn)[:, 1]
        assert abs(tool[:3, 1] @ across) > 0.999, "the fingers close across the toy"
        assert tool[:2, 3] == pytest.approx(middle[:2], abs=1e-3)
        assert tool[2, 3] - (middle[2] - kind.size[2] / 2) == pytest.approx(kind.grip_z_m, abs=1e-3)
        assert joints[-1] == kind.grip_m
    bench.close()


def test_kept_scene_is_the_drawn_scene_and_the_boxes_are_the_benchs(tmp_path: Path) -> None:
    drawn, pool = ToyPool("trials", 3, None).scene(1), ToyPool("trials", 3, tmp_path)
    for kept in (pool.scene(1), ToyPool("trials", 3, tmp_path).scene(1)):
        assert np.array_equal(kept.image, drawn.image)
        assert np.array_equal(kept.seen, drawn.seen)
        assert kept.poses == pytest.approx(drawn.poses, abs=1e-6)
    bench = ToyPlacementBench()
    truth = bench.show(drawn.trial)
    for box, item in zip(scene_boxes(imagined_scene(drawn.trial)), truth.objects, strict=False):
        assert item.box is not None
        assert box == pytest.approx((item.box.x_min, item.box.y_min, item.box.x_max, item.box.y_max), abs=0.5)
    bench.close()


@pytest.mark.parametrize("name", TOY_SOURCES)
def test_sample_is_a_function_of_seed_index_and_draw(name: str) -> None:
    first, again, other = (open_source(name, 3).sample(index, 2) for index in (17, 17, 18))
    if hasattr(first, "turns"):
        assert first.turns == again.turns
        assert all(np.array_equal(a, b) for a, b in zip(first.images, again.images, strict=True))
        assert bool(first.images) != (name == "toys_told")
        assert ("scene" in first.extras) == (name.startswith("toys_imagined") and bool(first.images))
        assert 1 <= len(first.turns) <= 5
    else:
        assert np.array_equal(first.image, again.image)
        assert not np.array_equal(first.image, other.image)


def test_vocabulary_of_a_toy_model_has_a_token_for_every_word() -> None:
    assert tasks_of("synthetic:toys_all") == ("toy_placement",)
    assert tasks_of("synthetic:toys_all,synthetic:all") == ("math_match", "toy_placement")
    assert tasks_of("coco=a.json") == ("math_match",)
    codec = TextCodec(tiny_tokenizer(("toy_placement",)))
    assert [w for w in toy_phrases.words() if min(len(codec.plain(w)), len(codec.plain(f" {w}"))) > 1] == []
    assert [w for w in toy_phrases.side_words() if len(codec.plain(w)) > 1] == []


def test_a_language_recipe_without_robot_is_refused(tmp_path: Path) -> None:
    values = {"size": "micro", "steps": "1", "scene_cache": "", "robot": ""}
    with pytest.raises(RecipeError, match="--robot NAME, one of arx_r5, franka"):
        train_recipe(changed(find_recipe("tiny_toys_objects"), values), tmp_path / "run")


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toys") / "set"
    settings = DemoSettings(task="toy_placement", frame_hz=0.5, disturbance=DisturbanceSettings(share=0.0))
    collect(out, episodes=1, seed=3, jobs=1, settings=settings)
    return out


def test_the_plan_takes_steps_from_nothing_to_a_policy(tmp_path: Path, toy_data: Path) -> None:
    """Two real steps of every recipe, each from the checkpoint of the one before, on scenes and one demonstration."""
    assert PLAN_DEMOS[find_recipe("tiny_toys_stage1").data][0] == "toy_placement"
    values = {"steps": "2", "batch": "4", "micro_batch": "4", "workers": "0", "scene_cache": str(tmp_path / "scenes")}
    recipes = [changed(find_recipe(name), values | {"data": str(toy_data)}) for name in PLANS["tiny_toys"]]
    recipes[:2] = [changed(recipe, {"size": "micro"}) for recipe in recipes[:2]]
    runs = planned(recipes, tmp_path / "plan")
    folders = {recipe.name.removeprefix("tiny_toys_"): train_recipe(recipe, folder) for recipe, folder in runs}
    objects, points, align, words = (
        load_checkpoint(folders[name]).model.state_dict() for name in ("objects", "points", "align", "words")
    )
    for name, value in points.items():
        seen = ".visual." in name
        assert seen or torch.equal(align[name], value), "only the tower learns what image tokens say"
        assert not (seen or "embed_tokens" in name) or torch.equal(words[name], value), (
            "image tokens aim at these words"
        )
    assert any(not torch.equal(align[name], objects[name]) for name in align if ".visual." in name)
    assert any(not torch.equal(words[name], points[name]) for name in words)
    last = load_checkpoint(folders["stage2"])
    assert last.model.config.readings == 1
    assert last.model.config.action.numbers == 16
    assert [(setup.spec.name, setup.cameras) for setup in last.robots] == [("franka", ("right",))]
    assert (last.model.config.images.width, last.model.config.images.height) == (336, 252)
    longest = max(len(last.codec.reasoning(text)) for text in toy_phrases_texts())
    assert last.model.config.max_reasoning_tokens > longest


def toy_phrases_texts() -> list[str]:
    return list(toy_phrases.texts(300, random.Random(2)))
