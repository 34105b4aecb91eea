# SPDX-License-Identifier: Apache-2.0
"""Whole runs of the smallest model: exact resume, stages, kept features, adapters, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chatvla_policy.checkpoint import load_checkpoint
from chatvla_policy.model.tiny import make_tiny_folder
from chatvla_training.build_data import Collate, robot_data, robot_setups
from chatvla_training.build_model import start_model
from chatvla_training.data.errors import SourceError
from chatvla_training.keep_golden import save_with_golden
from chatvla_training.recipe import Recipe, RecipeError, changed
from chatvla_training.trainer.loop import NotFiniteError
from chatvla_training.trainer.run_folder import RunFolder, RunFolderError
from chatvla_training.training_run import train_recipe

from .small_runs import small_recipe

FIGURES = ("loss", "language", "action", "gradient", "lr")


def losses(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("step", *FIGURES) if key in line} for line in lines if "loss" in line]


def test_run_folder_tells_what_was_run(stage1: Path):
    config = json.loads((stage1 / "config.json").read_text())
    assert config["recipe"]["steps"] == 6
    assert config["commit"]
    assert len(config["data"]) == 2
    assert [line["step"] for line in losses(stage1)] == [1, 2, 3, 4, 5, 6]
    assert (stage1 / "loss.svg").read_text().startswith("<svg")
    validation = [json.loads(line) for line in (stage1 / "metrics.jsonl").read_text().splitlines()]
    means = [line["validation"] for line in validation if "validation" in line]
    assert len(means) == 2
    assert {"loss", "language", "action", "action_error_arx_r5"} <= set(means[0])


def test_checkpoint_carries_its_provenance(stage1: Path):
    checkpoint = load_checkpoint(stage1 / "policy")
    assert checkpoint.provenance["recipe"]["name"] == "small"
    assert checkpoint.robot("arx_r5").cameras == ("top",)


def test_killed_run_goes_on_with_the_same_losses(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    recipe = small_recipe(arm_data, llava_file)
    run = tmp_path / "killed"
    code = (
        "import sys, json, pathlib\n"
        "from chatvla_training.recipe import Recipe\n"
        "from chatvla_training.training_run import train_recipe\n"
        "values = json.loads(sys.argv[1]); values['ratio'] = tuple(values['ratio'])\n"
        "train_recipe(Recipe(**values), pathlib.Path(sys.argv[2]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(recipe.to_dict()), str(run)],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            metrics = run / "metrics.jsonl"
            if metrics.exists() and metrics.read_text().count('"loss"') >= 3:
                break
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = losses(run) if (run / "metrics.jsonl").exists() else []
    assert 1 <= len(before) <= 6
    train_recipe(recipe, run)
    assert losses(run) == losses(stage1)
    first, second = (load_checkpoint(folder / "policy").model.state_dict() for folder in (stage1, run))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_state_written_half_is_ignored(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    recipe = small_recipe(arm_data, llava_file)
    run = tmp_path / "run"
    (run / "state/.step-00000004").mkdir(parents=True)
    (run / "state/.step-00000004/rank-0000.safetensors").write_bytes(b"half")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    train_recipe(recipe, run)
    assert losses(run) == losses(stage1)


def test_micro_batches_change_no_loss(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    # Noise is drawn per micro-batch, so only what needs none can be compared: the language loss of the first step.
    train_recipe(small_recipe(arm_data, llava_file, micro_batch=8, steps=1), tmp_path / "one")
    one, two = losses(tmp_path / "one")[0], losses(stage1)[0]
    assert one["language"] == pytest.approx(two["language"], rel=1e-3)


def test_stage2_trains_the_expert_alone_and_keeps_the_statistics(stage1: Path, tmp_path: Path, arm_data, llava_file):
    recipe = small_recipe(
        arm_data, llava_file, stage="stage2", moe="keep", init=str(stage1 / "policy"), ratio=(0, 1), steps=2, ema=0.0
    )
    train_recipe(recipe, tmp_path / "direct")
    before, after = load_checkpoint(stage1 / "policy"), load_checkpoint(tmp_path / "direct/policy")
    weights, trained = before.model.state_dict(), after.model.state_dict()
    changed_names = {name for name in weights if not torch.equal(weights[name], trained[name])}
    assert changed_names
    assert all(name.startswith("expert.") for name in changed_names)
    assert after.robots == before.robots

    kept = replace(recipe, cache_features=True, reword=False, cache_dtype="float32")
    train_recipe(kept, tmp_path / "kept")
    direct = losses(tmp_path / "direct")
    features = losses(tmp_path / "kept")
    assert [line["step"] for line in features] == [line["step"] for line in direct]
    assert "language" not in features[0]
    assert (tmp_path / "kept/policy/manifest.json").exists()


def test_rotary_joints_are_relative_and_grippers_are_not(arm_data: Path, llava_file: Path):
    robot = robot_data(small_recipe(arm_data, llava_file))
    (setup,) = robot_setups(small_recipe(arm_data, llava_file), robot, ())
    rotary = np.array([joint.unit == "rad" for joint in setup.spec.joints])
    assert setup.statistics.relative == tuple(np.array(setup.spec.joint_names)[rotary])
    data = robot.train[0]
    ways = np.concatenate([data.chunk(i)[0] - np.where(rotary, data.state(i), 0) for i in range(len(data))])
    np.testing.assert_allclose(setup.statistics.action.minimum, ways.min(0), atol=1e-6)
    np.testing.assert_allclose(setup.statistics.action.maximum, ways.max(0), atol=1e-6)
    (absolute,) = robot_setups(small_recipe(arm_data, llava_file, relative_actions=False), robot, ())
    assert absolute.statistics.relative == ()
    np.testing.assert_allclose(absolute.statistics.action.minimum, data.actions_ND.min(0), atol=1e-6)


def test_dense_start_is_upcycled_without_a_change(tmp_path: Path, arm_data: Path, llava_file: Path):
    dense = small_recipe(arm_data, llava_file, moe="dense", steps=1, ema=0.0, validate_every=0)
    train_recipe(dense, tmp_path / "dense")
    init = str(tmp_path / "dense/policy")
    robot = robot_data(dense)
    plain = start_model(replace(dense, init=init, moe="keep"), robot.specs("arx_r5"))
    mixed = start_model(replace(dense, init=init, moe="dynamic", experts=4, top_k=2), robot.specs("arx_r5"))
    setups = robot_setups(dense, robot, plain.robots)
    batch = Collate(plain.model, plain.codec, setups)([robot.train[0].sample(0, 0)])
    outputs = [start.model.eval().hidden_states(batch)[0] for start in (plain, mixed)]
    assert torch.allclose(*outputs, atol=1e-5)
    assert torch.equal(plain.model.queries_QV, mixed.model.queries_QV)


def test_stage2_alone_makes_the_expert_that_stage1_would(tmp_path: Path, arm_data: Path, llava_file: Path):
    language = small_recipe(
        arm_data, llava_file, stage="language", data="", robot="arx_r5", ratio=(1, 0), moe="dense", steps=1, ema=0.0
    )
    train_recipe(language, tmp_path / "language")
    chosen = {"init": str(tmp_path / "language/policy"), "action_size": "compact", "steps": 1, "ema": 0.0}
    first = small_recipe(arm_data, llava_file, **chosen, readings=3, action_loss_weight=5.0, validate_every=0)
    alone = replace(first, stage="stage2", ratio=(0, 1))
    for recipe in (first, alone):
        train_recipe(recipe, tmp_path / recipe.stage)
    whole, half = (load_checkpoint(tmp_path / stage / "policy") for stage in ("stage1", "stage2"))
    assert half.model.config == whole.model.config
    assert half.robots == whole.robots


def test_adapters_train_alone_and_are_folded_in(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    recipe = small_recipe(
        arm_data, llava_file, moe="keep", init=str(stage1 / "policy"), lora_rank=2, steps=2, ema=0.0, validate_every=0
    )
    train_recipe(recipe, tmp_path / "lora")
    before = load_checkpoint(stage1 / "policy").model.state_dict()
    after = load_checkpoint(tmp_path / "lora/policy").model.state_dict()
    assert set(before) == set(after)
    moved = {name for name in before if name.startswith("backbone.") and not torch.equal(before[name], after[name])}
    assert moved
    assert all(part in name for name in moved for part in ("_proj.weight",))


def test_checkpointing_gives_the_same_losses(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    train_recipe(small_recipe(arm_data, llava_file, checkpointing=True, steps=2), tmp_path / "saved")
    for saved, plain in zip(losses(tmp_path / "saved"), losses(stage1), strict=False):
        assert saved["loss"] == pytest.approx(plain["loss"], rel=1e-5)


def test_nan_stops_with_the_samples(tmp_path: Path, arm_data: Path, llava_file: Path, monkeypatch):
    from chatvla_training.data.episodes import EpisodeDataset

    whole = EpisodeDataset.sample

    def poisoned(self, index, draw):
        sample = whole(self, index, draw)
        return replace(sample, state=np.full_like(sample.state, np.nan)) if index == 3 else sample

    monkeypatch.setattr(EpisodeDataset, "sample", poisoned)
    with pytest.raises(NotFiniteError, match="action not finite") as caught:
        train_recipe(small_recipe(arm_data, llava_file, validate_every=0), tmp_path / "run")
    cause = json.loads((tmp_path / "run/stopped.json").read_text())
    assert any("episode-000001/row-0" in name for name in cause["samples"])
    assert "lower lr" in str(caught.value)


@pytest.mark.parametrize(("storage", "tolerance"), [("float32", 0.02), ("mixed", 0.06)])
def test_weights_of_a_shorter_type_may_miss_their_golden_chunk_by_more(
    storage, tolerance, stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path
):
    data = robot_data(small_recipe(arm_data, llava_file)).validation
    save_with_golden(tmp_path / "policy", load_checkpoint(stage1 / "policy"), data, storage=storage)
    golden = load_checkpoint(tmp_path / "policy").golden
    assert golden is not None
    assert golden.tolerance == tolerance


def test_a_qwen_start_takes_the_recipes_image_width(tmp_path: Path, arm_data: Path, llava_file: Path):
    recipe = small_recipe(arm_data, llava_file, init=str(make_tiny_folder(tmp_path)), image_width=112)
    robots = robot_data(recipe).specs("")
    images = start_model(recipe, robots).model.config.images
    assert (images.width, images.height) == (112, 84)


def test_second_writer_is_refused(tmp_path: Path):
    first = RunFolder(tmp_path)
    with pytest.raises(RunFolderError, match="another process writes"):
        RunFolder(tmp_path)
    first.close()
    RunFolder(tmp_path).close()


def test_another_recipe_in_the_same_folder_is_refused(stage1: Path, arm_data: Path, llava_file: Path):
    with pytest.raises(RunFolderError, match=r"lr was 0\.001, now 0\.5"):
        train_recipe(small_recipe(arm_data, llava_file, lr=0.5), stage1)


def test_run_that_an_older_version_began_goes_on(tmp_path: Path):
    now = Recipe(name="small", summary="", stage="stage1", steps=3, text_age_s=0.0).to_dict()
    before = {key: value for key, value in now.items() if key not in ("text_age_s", "ratio")} | {"earlier": 0.0}
    said_now = {"recipe": Recipe.said_now}
    folder = RunFolder(tmp_path)
    folder.claim({"recipe": before, "data": {}})
    folder.claim({"recipe": now, "data": {}}, said_now=said_now)
    folder.claim({"recipe": now | {"earlier": 0.5}, "data": {}}, keys=("data",))
    with pytest.raises(RunFolderError, match=r"earlier was 0\.5, now None; text_age_s was 0\.0, now 5"):
        folder.claim({"recipe": now | {"text_age_s": 5}, "data": {}}, said_now=said_now)
    folder.close()


def test_missing_data_is_said(tmp_path: Path, arm_data: Path, llava_file: Path):
    with pytest.raises(RecipeError, match="--data"):
        train_recipe(small_recipe(arm_data, llava_file, data=""), tmp_path / "a")
    with pytest.raises(RecipeError, match="--image_text"):
        train_recipe(small_recipe(arm_data, llava_file, image_text=""), tmp_path / "b")
    with pytest.raises(SourceError, match="no readable JSON"):
        train_recipe(small_recipe(arm_data, llava_file, image_text="qa=/nowhere.json"), tmp_path / "c")
    with pytest.raises(RecipeError, match="not a multiple"):
        train_recipe(small_recipe(arm_data, llava_file, batch=6), tmp_path / "d")


def test_frozen_prefix_does_not_move(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    recipe = small_recipe(arm_data, llava_file, freeze="backbone.model.visual", steps=1, ema=0.0, validate_every=0)
    robot = robot_data(recipe)
    before = {name: value.clone() for name, value in start_model(recipe, robot.specs("")).model.state_dict().items()}
    train_recipe(recipe, tmp_path / "run")
    after = load_checkpoint(tmp_path / "run/policy").model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone.model.visual"))
    with pytest.raises(RecipeError, match="there are: "):
        start_model(changed(recipe, {"freeze": "nothing"}), robot.specs(""))


@pytest.mark.slow
def test_two_devices_share_one_run(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    recipe = small_recipe(arm_data, llava_file, steps=2, ema=0.0)
    values = recipe.to_dict() | {"ratio": "1:3"}
    keys = [
        part for name, value in values.items() if name not in ("name", "summary") for part in (f"--{name}", str(value))
    ]
    command = [
        sys.executable,
        "-m",
        "chatvla_training.train",
        "stage1",
        *keys,
        "--devices",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "run/state/step-00000002").iterdir())) == 2
    assert load_checkpoint(tmp_path / "run/policy").provenance["machine"]["devices"] == 2
    # Same samples, same mean; only the random numbers differ.
    assert losses(tmp_path / "run")[0]["language"] == pytest.approx(losses(stage1)[0]["language"], rel=5e-3)
