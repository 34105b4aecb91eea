# SPDX-License-Identifier: Apache-2.0
"""Episodes as language: cuts by the motion, merged actions, questions; and a whole run of the smallest model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chatvla_control.cartesian import arm_models, cartesian_rows, joint_rows
from chatvla_control.contracts import ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.systems import load_policy, system_of
from chatvla_policy.vlm2vla.config import Vlm2VlaConfig
from chatvla_policy.vlm2vla.text_forms import MalformedError, parse_actions
from chatvla_training.data.assemble import assemble
from chatvla_training.data.record import EpisodeRecord, encode_image, save_record
from chatvla_training.recipes import RECIPES
from chatvla_training.training_run import train_recipe
from chatvla_training.vlm2vla.describe import direction_word, plan_text
from chatvla_training.vlm2vla.language_data import LanguageSource, question_answer
from chatvla_training.vlm2vla.relabel import RelabelSettings, relabel
from chatvla_training.vlm2vla.split import Merging, merged

WAYS = ((0.06, 0.04, 0.0), (0.0, 0.0, -0.06), None, (0.0, 0.0, 0.06), (-0.06, 0.0, 0.0), None)
"""Left tool's ways [m]; None turns the gripper over. Twenty rows each, ten at rest around a gripper's turn."""
FACTS = {
    "task": "math_match",
    "split": "in_domain",
    "equation": "3+4",
    "answer": "7",
    "cards": [["7", "left"], ["1", "middle"], ["12", "right"]],
}


@pytest.fixture(scope="module")
def picks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of two episodes in which the left arm goes across, down, grips, goes up, back and lets go."""
    folder = tmp_path_factory.mktemp("picks")
    spec = robot_spec("arx_r5")
    home = np.array(spec.home)
    place, grip, poses = cartesian_rows(spec, home[None])[0], 0.08, []
    for way in WAYS:
        if way is None:
            grip = 0.04 if grip == 0.08 else 0.08
            poses += [np.append(place[:9], grip)] * 10
            continue
        for share in np.linspace(0, 1, 20):
            poses.append(np.append(place[:3] + share * np.array(way), [*place[3:9], grip]))
        place = np.append(poses[-1][:9], place[9:])
    rows = np.repeat(cartesian_rows(spec, home[None]), len(poses), axis=0)
    rows[:, :10] = poses
    joints = joint_rows(spec, rows, start=home).astype(np.float32)
    frames = np.arange(0, len(poses), 5)
    rng = np.random.default_rng(0)
    paths = []
    for seed in range(2):
        record = EpisodeRecord(
            instruction="Pick the card.",
            rate_hz=50.0,
            states=joints,
            actions=joints,
            frame_rows=frames,
            frames={"top": [encode_image(rng.integers(0, 255, (48, 64, 3), np.uint8), codec="png") for _ in frames]},
            reasoning=["3+4=7. I should pick the left card."] * len(frames),
            facts=FACTS | {"seed": seed},
        )
        paths.append(folder / f"{seed}.npz")
        save_record(record, paths[-1])
    assemble(paths, folder / "set", robot=spec.name, joint_names=spec.joint_names, provenance={}, validation_share=0.5)
    return folder / "set"


@pytest.fixture(scope="module")
def language(picks: Path) -> Path:
    relabel(picks, picks.parent / "language", RelabelSettings())
    return picks.parent / "language"


def lines(folder: Path, kind: str) -> list[dict]:
    entries = [json.loads(line) for line in (folder / "language.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["kind"] == kind and entry["split"] == "train"]


def test_episode_is_cut_where_the_motion_turns(language: Path):
    (entry,) = lines(language, "subtasks")
    assert entry["subtasks"] == [
        "left arm: Move to the left card",
        "left arm: Lower to the left card",
        "left arm: Grasp the left card",
        "left arm: Lift the left card",
        "left arm: Move the left card to the board",
        "left arm: Release the left card",
    ]
    info = json.loads((language / "info.json").read_text())
    assert (info["open_m"], info["closed_m"]) == (pytest.approx(0.08, abs=0.009), pytest.approx(0.04, abs=1e-3))
    assert set(info["anchors"]) == {"left", "right"}


def test_actions_sum_to_the_way_and_say_the_gripper(language: Path):
    for entry, way in zip(lines(language, "actions"), WAYS, strict=True):
        actions = parse_actions(entry["actions"])
        np.testing.assert_allclose(actions[:, :3].sum(0), way or (0, 0, 0), atol=6e-3)
        assert np.linalg.norm(actions[:, :3], axis=1).max() <= 0.05 + 2e-3
    closes = lines(language, "actions")[2]
    assert parse_actions(closes["actions"])[-1, 3] == 0.0
    assert closes["plan"] == "Close the gripper."


def test_auxiliary_questions_follow_the_motion(language: Path):
    first = [entry["direction"] for entry in lines(language, "direction")[:3]]
    assert first == ["forward", "left", "none"]
    verdicts = lines(language, "completion")
    assert [entry["success"] for entry in verdicts[:2]] == [True, False]
    assert verdicts[-1]["next"] == "none"
    assert all(
        (language / "images" / name).is_file()
        for entry in verdicts
        for view in entry["images"]
        for name in view.values()
    )


def test_merging_keeps_the_sum_and_the_limits():
    steps = np.tile([0.004, -0.001, 0.0, 1.0], (20, 1))
    steps[-1, 3] = 0.0
    found = merged(steps, Merging())
    np.testing.assert_allclose(found[:, :3].sum(0), steps[:, :3].sum(0), atol=5e-4)
    assert (np.abs(found[:-2, 0]) >= 0.025).all()
    assert found[-1, 3] == 0.0
    back = merged(np.array([[0.01, 0, 0, 1.0], [-0.01, 0, 0, 1.0]]), Merging())
    assert len(back) == 2


def test_words_of_a_displacement():
    assert direction_word(-0.03, 1) == "right"
    assert direction_word(0.02, 2) == "none"
    text = plan_text(np.array([0.012, -0.08, -0.03]), before=True, after=True)
    assert text == "Move right and down, slightly forward. Gripper stays open."


def test_questions_of_each_variant(language: Path):
    spec = robot_spec("arx_r5")
    (subtasks,) = lines(language, "subtasks")
    actions = lines(language, "actions")[0]
    plain, direct = Vlm2VlaConfig(prompts="short", tell_pose=True), Vlm2VlaConfig(variant="no_reasoning")
    assert question_answer(subtasks, direct, spec, 0) is None
    assert question_answer(actions, direct, spec, 0)[1].startswith("left arm: [[")
    question, answer = question_answer(actions, plain, spec, 0)
    assert "Tool at [" in question
    assert parse_actions(answer).shape[1] == 4
    texts = {question_answer(subtasks, plain, spec, draw)[1] for draw in range(6)}
    assert len(texts) > 1
    assert all("'left arm: Move to the left card'" in text for text in texts)


SMALL = {
    "size": "micro",
    "steps": 2,
    "batch": 4,
    "micro_batch": 4,
    "warmup": 0,
    "precision": "fp32",
    "workers": 0,
    "validate_every": 2,
    "validation_batches": 1,
    "checkpoint_every": 2,
    "storage": "as_is",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained checkpoint of the tiny kind, as the pretraining's run leaves one."""
    from chatvla_training.recipe import Recipe

    folder = tmp_path_factory.mktemp("base")
    Path(folder / "chat.json").write_text(
        json.dumps([{"id": 0, "conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}])
    )
    recipe = replace(RECIPES["pretrain"], image_text=f"qa={folder / 'chat.json'}", init="", **SMALL)
    assert isinstance(recipe, Recipe)
    return train_recipe(recipe, folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_vlm2vla", "tiny_vlm2vla_at", "tiny_vlm2vla_nr"])
def test_a_run_keeps_the_base_and_gives_a_policy(name: str, tmp_path: Path, language: Path, base: Path):
    from chatvla_control.contracts import Observation

    recipe = replace(RECIPES[name], init=str(base), data=str(language), checkpointing=False, **SMALL)
    policy_folder = train_recipe(recipe, tmp_path / name)
    assert system_of(policy_folder) == "vlm2vla"
    files = {path.relative_to(policy_folder).as_posix() for path in policy_folder.rglob("*") if path.is_file()}
    assert {"adapter/adapter_model.safetensors", "base/model.safetensors", "robot_spec.json"} <= files
    adapter = json.loads((policy_folder / "adapter/adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (16, 32)
    assert not adapter["base_model_name_or_path"]
    policy = load_policy(policy_folder)
    assert len(policy.config.digit_tokens) == (10 if name.endswith("_at") else 0)
    assert policy.setup.mode is ActionMode.CARTESIAN_POSE
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    spec = policy.setup.spec
    seen = Observation(
        images={"top": image},
        image_stamps_s={"top": 1.0},
        joint_positions=np.array(spec.home),
        instruction="Pick the card.",
        stamp_s=1.0,
    )
    policy.config = policy._questions.config = replace(policy.config, max_tries=1, max_new_tokens=8)
    if name.endswith("_nr"):
        found = policy.infer(seen)
        assert found.chunk.actions.shape[1] == 10 * len(arm_models(spec))
        assert "Left out" in found.reasoning.text
    else:
        with pytest.raises(MalformedError, match="no readable answer in 1 tries"):
            policy.infer(seen)
    assert (policy.counts.malformed, policy.counts.given_up) == (1, 1)


@pytest.mark.slow
def test_the_exported_base_reads_what_it_was_pretrained_on(base: Path, tmp_path: Path):
    import torch

    from chatvla_policy.checkpoint import load_checkpoint
    from chatvla_policy.model.moe import Routing, routing
    from chatvla_policy.processing.images import ImagePreparer
    from chatvla_policy.processing.prompts import question_prompt
    from chatvla_policy.vlm2vla.image_text_model import ImageTextModel
    from chatvla_training.vlm2vla.base import export_base

    checkpoint = load_checkpoint(base)
    size = export_base(base, tmp_path, dtype=torch.float32)
    model = ImageTextModel.load(tmp_path, adapter=None, size=size)
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    inputs = model.inputs("Where is the 3 card? On 12+4.", [image])
    prepared = ImagePreparer(checkpoint.model.config.images)([image])
    prompt = question_prompt(checkpoint.codec, "Where is the 3 card? On 12+4.", image_tokens=prepared.tokens)
    assert inputs["input_ids"][0].tolist() == list(prompt.ids)
    torch.testing.assert_close(inputs["pixel_values"], prepared.pixel_values_PX)
    assert model.codec.ids("On 3+4=7 [") == checkpoint.codec.reasoning("On 3+4=7 [")
    with torch.no_grad(), routing(Routing()):
        ours = (
            checkpoint.model.float()
            .backbone(
                input_ids=inputs["input_ids"],
                mm_token_type_ids=inputs["mm_token_type_ids"],
                pixel_values=prepared.pixel_values_PX,
                image_grid_thw=prepared.grid_thw_N3,
            )
            .logits
        )
        theirs = model.model(**inputs).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_vlm2vla_recipe_is_the_papers():
    recipe = RECIPES["vlm2vla"]
    assert (recipe.lr, recipe.schedule, recipe.batch, recipe.beta1, recipe.beta2) == (5e-5, "linear", 8, 0.9, 0.999)
    assert (recipe.lora_rank, recipe.lora_alpha) == (16, 32)
    assert set(recipe.lora_targets.split(",")) == {
        f"{part}_proj" for part in ("q", "k", "v", "o", "up", "down", "gate")
    }


def test_questions_come_from_relabelled_data_only(tmp_path: Path):
    from chatvla_training.data.errors import SourceError

    with pytest.raises(SourceError, match="chatvla relabel"):
        LanguageSource(tmp_path, Vlm2VlaConfig())
