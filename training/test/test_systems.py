# SPDX-License-Identifier: Apache-2.0
"""Recipes of the other systems and of the baselines: published numbers, and a whole run of the smallest size each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chatvla_control.contracts import InputKind, Observation
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from chatvla_policy.model.action.config import action_size
from chatvla_policy.systems import checkpoint_folder, load_policy, system_of
from chatvla_training.build_model import start_model
from chatvla_training.diffusion_run import policy_config
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.recipes import RECIPES
from chatvla_training.training_run import train_recipe

SMALL = {
    "init": "",
    "size": "micro",
    "action_size": "tiny",
    "horizon": 8,
    "steps": 2,
    "batch": 8,
    "micro_batch": 8,
    "warmup": 1,
    "precision": "fp32",
    "workers": 0,
    "validate_every": 2,
    "validation_batches": 1,
    "checkpoint_every": 2,
    "storage": "as_is",
    "checkpointing": False,
    "cache_draws": 1,
    "cache_dtype": "float32",
}


def run(name: str, out: Path, **changes) -> Path:
    """Train recipe `name` at the smallest size; return the checkpoint's folder."""
    return train_recipe(replace(RECIPES[name], **(SMALL | changes)), out / name)


def observation(stamp_s: float = 1.0) -> Observation:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    return Observation(
        images={"top": image},
        image_stamps_s={"top": stamp_s},
        joint_positions=np.array(robot_spec("arx_r5").home),
        instruction="Pick the card.",
        stamp_s=stamp_s,
    )


def test_chatvla1_recipes_are_the_papers():
    first, second = RECIPES["chatvla1_stage1"], RECIPES["chatvla1_stage2"]
    assert (first.batch, first.lr, first.schedule, first.ratio) == (128, 2e-5, "constant", (0, 1))
    assert (second.batch, second.lr, second.schedule, second.ratio) == (128, 2e-5, "cosine", (1, 3))
    assert (first.stage, second.stage, first.moe, first.conditioning) == ("control", "stage1", "static", "film")


def test_tiny_chatvla1_is_small_enough_to_ship(tmp_path: Path):
    recipe, last = RECIPES["tiny_chatvla1_stage1"], RECIPES["tiny_chatvla1_head"]
    spec = robot_spec("arx_r5")
    start = start_model(recipe, [spec])
    checkpoint = Checkpoint(model=start.model, codec=start.codec, robots=start.robots)
    save_checkpoint(tmp_path / "policy", checkpoint, storage=last.storage)
    golden = (checkpoint_folder("tiny") / "golden.safetensors").stat().st_size
    size = sum(file.stat().st_size for file in (tmp_path / "policy").rglob("*") if file.is_file())
    assert size + golden <= 15e6


@pytest.mark.slow
def test_chatvla1_keeps_understanding_in_robot_only_training(tmp_path: Path, arm_data: Path, llava_file: Path):
    base = run("pretrain", tmp_path, image_text=f"qa={llava_file}")
    first = run("tiny_chatvla1_stage1", tmp_path, init=str(base), data=str(arm_data))
    before, after = load_checkpoint(base).model.backbone, load_checkpoint(first).model.backbone
    dense, trained = before.state_dict(), after.state_dict()
    understanding = {key.replace("static_experts.0.", ""): value for key, value in trained.items()}
    assert all(np.array_equal(value.numpy(), understanding[key].numpy()) for key, value in dense.items())
    control = {key: value for key, value in trained.items() if "static_experts.1." in key}
    assert any(
        not np.array_equal(value.numpy(), dense[key.replace("static_experts.1.", "")]) for key, value in control.items()
    )
    second = run("tiny_chatvla1_stage2", tmp_path, init=str(first), data=str(arm_data), image_text=f"qa={llava_file}")
    last = run("tiny_chatvla1_head", tmp_path, init=str(second), action_size="", data=str(arm_data))
    policy = load_policy(last)
    assert (system_of(last), policy.system) == ("chatvla1", "chatvla1")
    found = policy.infer(observation())
    assert found.chunk.actions.shape == (8, 14)
    assert found.router is not None
    assert found.router.kind is InputKind.ROBOT
    np.testing.assert_array_equal(found.router.load[:, 1], 1.0)  # One path is active.


@pytest.mark.slow
def test_dense_film_trains_both_stages(tmp_path: Path, arm_data: Path, llava_file: Path):
    data = {"data": str(arm_data), "image_text": f"qa={llava_file}"}
    first = run("tiny_dense_film_stage1", tmp_path, **data)
    second = run("tiny_dense_film_stage2", tmp_path, init=str(first), action_size="", **data)
    policy = load_policy(second)
    assert policy.system == "dense_film"
    assert policy.checkpoint.model.config.action.conditioning == "film"
    assert policy.infer(observation()).chunk.actions.shape == (8, 14)


def test_control_stage_needs_a_control_path(tmp_path: Path, arm_data: Path):
    with pytest.raises(RecipeError, match="--moe static"):
        run("tiny_chatvla1_stage1", tmp_path, data=str(arm_data), moe="dense")


def test_cameras_of_a_recipe_are_views_of_the_data(tmp_path: Path, arm_data: Path):
    with pytest.raises(RecipeError, match="no view 'wrist'; it has: top"):
        run("tiny_dense_film_stage1", tmp_path, data=str(arm_data), image_text="", ratio=(0, 1), cameras="top,wrist")


def test_every_recipe_names_a_system():
    from chatvla_policy.systems import SYSTEMS

    unknown = {name for name, recipe in RECIPES.items() if recipe.system not in SYSTEMS}
    assert not unknown, unknown
    assert isinstance(RECIPES["stage1"], Recipe)


def test_diffusion_policy_of_the_full_size_has_the_published_encoder():
    action = action_size("S", conditioning="none", queries=1, embodiments=())
    full, tiny = (policy_config(RECIPES[name], action) for name in ("diffusion_policy", "tiny_diffusion_policy"))
    assert (full.channels, full.blocks) == ((64, 128, 256, 512), 2)
    assert (tiny.channels, tiny.blocks) == ((32, 64, 128, 128), 1)


@pytest.mark.slow
def test_diffusion_policy_reads_no_instruction(tmp_path: Path, arm_data: Path):
    from dataclasses import replace as changed

    from chatvla_control.chunk_check import check_chunk

    policy = load_policy(run("tiny_diffusion_policy", tmp_path, data=str(arm_data), ema=0.0, steps=8, lr=5e-3))
    assert (policy.system, policy.privileged) == ("diffusion_policy", False)
    seen, chunks = observation(), []
    for instruction in ("Pick the card.", "Sing a song."):
        policy.reset(0)
        chunks.append(policy.infer(changed(seen, instruction=instruction)).chunk)
    np.testing.assert_array_equal(chunks[0].actions, chunks[1].actions)
    assert check_chunk(chunks[0], policy.setup.spec, now_s=seen.stamp_s) is None
    other = changed(seen, images={"top": 255 - seen.images["top"]})
    policy.reset(0)
    assert not np.array_equal(policy.infer(other).chunk.actions, chunks[0].actions)
    assert policy.infer(seen).reasoning.text == ""
    assert not hasattr(policy, "ask")
