# SPDX-License-Identifier: Apache-2.0
"""A run belongs to the checkpoint that it began with, and its policy appears at once, with what it was checked by."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chatvla_policy.checkpoint import load_checkpoint, save_checkpoint
from chatvla_training import keep_golden
from chatvla_training.data.episodes import EpisodeDataset
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.trainer.run_folder import RunFolder, RunFolderError
from chatvla_training.training_run import train_recipe

from .small_runs import small_recipe, with_damaged_picture

SHORT = {"steps": 1, "ema": 0.0, "validate_every": 0}


def begun(stage1: Path, folder: Path, arm_data: Path, llava_file: Path) -> tuple[Recipe, Path, Path]:
    """Return a recipe of stage 2, the checkpoint that it starts from and a finished run of it."""
    init, run = folder / "init", folder / "run"
    shutil.copytree(stage1 / "policy", init)
    recipe = small_recipe(arm_data, llava_file, stage="stage2", moe="keep", init=str(init), ratio=(0, 1), **SHORT)
    train_recipe(recipe, run)
    return recipe, init, run


def save_anew(init: Path) -> None:
    """Put a checkpoint of another training in the place of `init`."""
    save_checkpoint(init, replace(load_checkpoint(init), provenance={"trained": "anew"}))


def test_a_run_goes_on_from_the_checkpoint_it_began_with_alone(stage1: Path, tmp_path: Path, arm_data, llava_file):
    recipe, init, run = begun(stage1, tmp_path, arm_data, llava_file)
    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped, ignore=shutil.ignore_patterns("policy"))
    sha256 = load_checkpoint(init).sha256
    save_anew(init)
    for folder in (run, stopped):
        with pytest.raises(RunFolderError, match=f"whose init {init} was {sha256[:12]}, now it is .* another --out"):
            train_recipe(recipe, folder)
        assert json.loads((folder / "config.json").read_text())["init_sha256"] == sha256
    with pytest.raises(RunFolderError, match="another recipe: init was"):
        train_recipe(replace(recipe, init=str(stage1 / "policy")), stopped)
    shutil.rmtree(init)
    with pytest.raises(RunFolderError, match="now it is gone"):
        train_recipe(recipe, stopped)
    # A finished run needs it no more.
    assert train_recipe(recipe, run) == run / "policy"
    assert json.loads((run / "config.json").read_text())["init_sha256"] == sha256


def test_a_run_that_names_no_fingerprint_goes_on(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    recipe, init, run = begun(stage1, tmp_path, arm_data, llava_file)
    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped, ignore=shutil.ignore_patterns("policy"))
    save_anew(init)
    for folder in (run, stopped):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "init_sha256"}))
        assert train_recipe(recipe, folder) == folder / "policy"
        # Whatever lies there now need not be what it began with.
        assert "init_sha256" not in json.loads((folder / "config.json").read_text())


def test_a_tower_of_another_training_is_another_start(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    tower = tmp_path / "tower"
    shutil.copytree(stage1 / "policy", tower)
    recipe = small_recipe(arm_data, llava_file, init_vision=str(tower), ratio=(0, 1), **SHORT)
    train_recipe(recipe, tmp_path / "run")
    save_anew(tower)
    with pytest.raises(RunFolderError, match="whose init_vision"):
        train_recipe(recipe, tmp_path / "run")


def test_golden_input_is_the_first_frame_that_can_be_read(tmp_path: Path, arm_data: Path, llava_file: Path):
    damaged = with_damaged_picture(arm_data, tmp_path / "set", row=90)
    policy = train_recipe(small_recipe(damaged, llava_file, ratio=(0, 1), **SHORT), tmp_path / "run")
    golden = load_checkpoint(policy).golden
    assert golden is not None
    second = EpisodeDataset(damaged, split="val", horizon=8).sample(1, 0)
    np.testing.assert_array_equal(golden.images[0], second.images["top"])
    np.testing.assert_array_equal(golden.state, second.state)
    assert sorted(path.name for path in policy.parent.iterdir() if "policy" in path.name) == ["policy"]


def test_a_policy_without_its_golden_input_is_none(
    tmp_path: Path, arm_data: Path, llava_file: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_, **__):
        raise KeyboardInterrupt

    recipe = small_recipe(arm_data, llava_file, ratio=(0, 1), **SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(keep_golden, "load_policy", killed)
        with pytest.raises(KeyboardInterrupt):
            train_recipe(recipe, tmp_path / "run")
    assert not (tmp_path / "run/policy").exists()
    assert load_checkpoint(train_recipe(recipe, tmp_path / "run")).golden is not None


@pytest.mark.parametrize(("system", "reason"), [("dense_film", "has no mixture"), ("chatvla1", "has a static mixture")])
def test_model_that_is_none_of_its_system_is_refused_before_the_first_step(
    stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path, system: str, reason: str
):
    recipe = small_recipe(
        arm_data, llava_file, stage="stage2", moe="keep", init=str(stage1 / "policy"), ratio=(0, 1), system=system
    )
    with pytest.raises(RecipeError, match=f"system '{system}': .*{reason}"):
        train_recipe(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_kept_features_of_data_sets_of_one_name_stay_apart(
    stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path
):
    places = [tmp_path / name / "set" for name in ("monday", "tuesday")]
    for place in places:
        shutil.copytree(arm_data, place)
    recipe = small_recipe(
        arm_data, llava_file, stage="stage2", moe="keep", init=str(stage1 / "policy"), ratio=(0, 1),
        cache_features=True, data=",".join(map(str, places)), **SHORT,
    )  # fmt: skip
    info = places[1] / "meta" / "chatvla.json"
    content = json.loads(info.read_text())
    info.write_text(json.dumps(content | {"files": {**content["files"], "more": "x"}}))
    train_recipe(recipe, tmp_path / "run")
    assert set(json.loads((tmp_path / "run" / "config.json").read_text())["data"]) >= {"set:train", "set:train #2"}


def test_a_state_half_written_by_a_killed_process_does_not_stay(tmp_path: Path):
    left = tmp_path / "state" / ".step-00000007"
    left.mkdir(parents=True)
    with RunFolder(tmp_path).new_state(9) as aside:
        (aside / "weights").write_text("x")
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-00000009"]


def test_stage2_needs_the_cameras_of_its_checkpoint(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    other = tmp_path / "set"
    shutil.copytree(arm_data, other, ignore=shutil.ignore_patterns(".frames"))
    for path in (*other.glob("meta/*.json"), next(other.glob("data/*/*.parquet"))):
        path.write_bytes(path.read_bytes().replace(b"images.top", b"images.low"))
    recipe = small_recipe(other, llava_file, stage="stage2", moe="keep", init=str(stage1 / "policy"), ratio=(0, 1))
    with pytest.raises(RecipeError, match=r"sees top, and .* has no view top; it has: low. Give --data"):
        train_recipe(recipe, tmp_path / "run")
