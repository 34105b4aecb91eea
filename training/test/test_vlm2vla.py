# SPDX-License-Identifier: Apache-2.0
"""VLM2VLA's questions and their shares, what a recipe needs, and whole runs of the smallest model."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import nn

from chatvla_control.cartesian import arm_models
from chatvla_control.contracts import ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.model.tiny import make_tiny_folder
from chatvla_policy.systems import load_policy, system_of
from chatvla_policy.vlm2vla.config import Temperatures, Vlm2VlaConfig
from chatvla_policy.vlm2vla.image_text_model import load_base
from chatvla_policy.vlm2vla.text_forms import MalformedError, parse_actions
from chatvla_training.data.errors import SourceError
from chatvla_training.data.mixture import Mixture
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.recipes import RECIPES
from chatvla_training.system_runs import train_system
from chatvla_training.trainer.run_folder import RunFolderError
from chatvla_training.training_run import train_recipe
from chatvla_training.vlm2vla.adapters import ALL, linear_modules
from chatvla_training.vlm2vla.language_data import LanguageGroups, LanguageSource, question_answer
from chatvla_training.vlm2vla.relabel import RelabelSettings, relabel
from chatvla_training.vlm2vla.run import Vlm2VlaRun
from chatvla_training.vlm2vla.shares import language_groups

from .vlm2vla_picks import lines, picks_set


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a relabelled data set of two episodes, one of them held out."""
    folder = tmp_path_factory.mktemp("picks")
    relabel(picks_set(folder, facts=[{}, {}]), folder / "language", RelabelSettings())
    return folder / "language"


def test_questions_of_each_variant(language: Path):
    spec = robot_spec("arx_r5")
    subtasks, actions, end = (lines(language, kind)[0] for kind in ("subtasks", "actions", "end"))
    plain, direct = (Vlm2VlaConfig(prompts="short", tell_pose=True, variant=name) for name in ("full", "no_reasoning"))
    assert question_answer(subtasks, direct, spec, 0) is None
    question, answer = question_answer(actions, direct, spec, 0)
    assert answer.startswith("left arm: [[")
    assert "Tool at" not in question
    assert question_answer(end, direct, spec, 0) == (question, "left arm: []")
    assert question_answer(end, plain, spec, 0) is None
    question, answer = question_answer(actions, plain, spec, 0)
    assert "Tool at [" in question
    assert parse_actions(answer).shape[1] == 4
    texts = {question_answer(subtasks, plain, spec, draw)[1] for draw in range(6)}
    assert len(texts) > 1
    assert all("'left arm: Move to the left card'" in text for text in texts)


def test_kinds_of_questions_come_in_their_shares(language: Path):
    source = LanguageSource(language, Vlm2VlaConfig(prompts="short"))
    mixture = Mixture(language_groups([source], (), ratio=(0, 1), shares="subtasks:3,plan:2,actions:4,end:1"), seed=3)
    for block in range(3):
        kinds = Counter(mixture.sample(place)[0].id.split("/")[2] for place in range(9 * block, 9 * block + 9))
        assert kinds == {"subtasks": 3, "plan": 2, "actions": 4}  # The full method asks no "end".
    natural = language_groups([source], (), ratio=(0, 1), shares="")
    assert [len(group) for group in natural] == [0, len(source)]
    with pytest.raises(RecipeError, match="kinds are: subtasks, plan"):
        language_groups([source], (), ratio=(0, 1), shares="steps:3")
    with pytest.raises(RecipeError, match="leaves no question"):
        language_groups([source], (), ratio=(0, 1), shares="end:1")


def test_completions_show_all_views_before_then_all_after(tmp_path: Path):
    source = picks_set(tmp_path, facts=[{}, {}], views=("top", "left"))
    relabel(source, tmp_path / "language", RelabelSettings())
    sample = LanguageSource(tmp_path / "language", Vlm2VlaConfig()).only("completion").sample(0, 0)
    shown = [[view[key] for key in ("top", "left")] for view in lines(tmp_path / "language", "completion")[0]["images"]]
    assert [len(sample.images), *map(len, shown)] == [4, 2, 2]
    assert len({name.split("-")[2] for name in shown[0]}) == 1
    assert len({image.tobytes() for image in sample.images}) == 4


def test_a_batch_by_lengths_has_the_loss_of_the_batch_in_one(tmp_path: Path, language: Path):
    run = Vlm2VlaRun(replace(RECIPES["tiny_vlm2vla"], data=str(language)), accelerator())
    task, collate = run.build()
    short, long = (run._sources[0].only(kind) for kind in ("direction", "subtasks"))
    samples = [*(short.sample(index, 0) for index in range(4)), long.sample(0, 0), short.sample(4, 0)]
    cut = collate(samples)
    whole = LanguageGroups(parts=(collate._collate(samples),))
    assert [len(part.written_BT) for part in cut.parts] == [5, 1]
    assert len(collate(samples[:4]).parts) == 1
    assert task.counts(cut) == task.counts(whole)
    with torch.no_grad():
        torch.testing.assert_close(task.module(cut).language_sum, task.module(whole).language_sum, rtol=1e-5, atol=0.0)


def accelerator(devices: int = 1) -> Any:
    return SimpleNamespace(num_processes=devices)


def test_a_recipe_says_what_is_missing_and_how_it_is_made(tmp_path: Path, language: Path):
    tiny = RECIPES["tiny_vlm2vla"]
    data = tmp_path / "math_match_language"
    made = tmp_path / "math_match"
    demos = rf"demos math_match .* --noise 0 --out {made}, then ./chatvla relabel {made} "
    with pytest.raises(SourceError, match=demos):
        Vlm2VlaRun(replace(tiny, data=str(data)), accelerator())
    made.mkdir()
    with pytest.raises(SourceError, match=rf"make it with ./chatvla relabel .* --out {data}"):
        Vlm2VlaRun(replace(tiny, data=str(data)), accelerator())
    for init in ("tiny_bass", "runs/none/policy"):
        with pytest.raises(RecipeError, match=r"comes with the package .*tiny_base"):
            Vlm2VlaRun(replace(tiny, data=str(language), init=init), accelerator())
    with pytest.raises(RecipeError, match="temperatures: '0,1' is not 4 numbers"):
        Vlm2VlaRun(replace(tiny, data=str(language), temperatures="0,1"), accelerator())
    run = Vlm2VlaRun(replace(tiny, data=str(language)), accelerator())
    assert run._config.temperatures == Temperatures(subtasks=0.0, plan=0.0, actions=0.0, verify=0.0)
    assert (run._config.image_width, run._config.image_height) == (308, 224)


def test_whole_weights_are_trained_on_each_device():
    for name, recipe in RECIPES.items():
        if recipe.system in ("vlm2vla", "diffusion_policy"):
            assert not recipe.shard, name
    with pytest.raises(RecipeError, match="--shard false"):
        train_system("", replace(RECIPES["vlm2vla"], shard=True), None, accelerator(2), {})


def test_adapters_stand_on_linear_layers_alone(tmp_path: Path):
    model, _ = load_base(make_tiny_folder(tmp_path / "base"))
    found = linear_modules(model, ALL)
    assert all(isinstance(model.get_submodule(name), nn.Linear) for name in found)
    assert "lm_head" not in found
    assert any("merger" in name for name in found)
    some = linear_modules(model, "q_proj,proj")
    assert {name.rpartition(".")[2] for name in some} == {"q_proj", "proj"}
    assert not any("patch_embed" in name for name in some)  # A convolution called proj.
    with pytest.raises(RecipeError, match="no linear layer x_proj; there are: all-linear"):
        linear_modules(model, "q_proj,x_proj")


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
    assert (adapter["r"], adapter["lora_alpha"]) == (64, 128)
    assert adapter["target_modules"] == sorted(adapter["target_modules"])
    assert not adapter["base_model_name_or_path"]
    policy = load_policy(policy_folder, temperatures=Temperatures(actions=0.2))
    assert (policy.config.temperatures.actions, policy.config.temperatures.plan) == (0.2, 0.1)
    assert policy.config.max_new_tokens >= 512
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
    assert (policy.counts["malformed"], policy.counts["given_up"]) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_vlm2vla", "tiny_vlm2vla_at"])
def test_a_run_goes_on_from_an_adapter(name: str, tmp_path: Path, language: Path, base: Path):
    recipe = replace(RECIPES[name], init=str(base), data=str(language), checkpointing=False, **SMALL)
    first = train_recipe(recipe, tmp_path / "first")
    # So small a rate leaves the weights that the second run began with as they are.
    again = replace(recipe, init=str(first), lr=1e-30, seed=1)
    second = train_recipe(again, tmp_path / "second")
    weights = [load_file(folder / "adapter/adapter_model.safetensors") for folder in (first, second)]
    assert any(value.abs().sum() > 0 for key, value in weights[0].items() if "lora_B" in key)
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-20)
    configs = [load_policy(folder).config for folder in (first, second)]
    assert configs[0] == configs[1]
    for file in ("base/model.safetensors", "base/config.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()
    origin = json.loads((second / "provenance.json").read_text())
    assert (origin["base"], origin["init"]) == (str(base), str(first))
    going = replace(recipe, init=str(first))
    with pytest.raises(RecipeError, match=r"\('no_reasoning', 'short', True\); give the former"):
        Vlm2VlaRun(replace(going, variant="no_reasoning"), accelerator())
    with pytest.raises(RecipeError, match="an adapter of rank 64, alpha 128; give --lora_rank and --lora_alpha so"):
        Vlm2VlaRun(replace(going, lora_rank=8), accelerator()).build()
    with pytest.raises(RecipeError, match="other layers than lora_targets names"):
        Vlm2VlaRun(replace(going, lora_targets="q_proj"), accelerator()).build()
    first.rename(tmp_path / "moved")
    assert train_recipe(again, tmp_path / "second") == second
    with pytest.raises(RunFolderError, match="another recipe: lr was"):
        train_recipe(replace(again, lr=1.0), tmp_path / "second")
    shutil.copytree(base, first)
    with pytest.raises(RunFolderError, match="whose init"):
        train_recipe(again, tmp_path / "second")


@pytest.fixture
def own_precision() -> Iterator[None]:
    """Let a test train in a precision of its own: accelerate keeps one for all of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.slow
@pytest.mark.usefixtures("own_precision")
def test_a_base_of_others_trains_in_bf16_and_is_named(tmp_path: Path, language: Path, monkeypatch: pytest.MonkeyPatch):
    base = make_tiny_folder(tmp_path / "base")
    small = SMALL | {"precision": "bf16"}
    recipe = replace(RECIPES["vlm2vla_at"], init=str(base), data=str(language), checkpointing=True, **small)
    monkeypatch.setenv("CHATVLA_TEMPERATURES", "0.1,0.2,0.3,0.4")
    policy = load_policy(train_recipe(recipe, tmp_path / "run"))
    assert policy.config.base == str(base)
    assert policy.config.temperatures == Temperatures(subtasks=0.1, plan=0.2, actions=0.3, verify=0.4)
    assert len(policy.config.digit_tokens) == 10
    monkeypatch.delenv("CHATVLA_TEMPERATURES")
    more = load_policy(train_recipe(replace(recipe, init=str(tmp_path / "run/policy")), tmp_path / "more"))
    assert more.config.base == str(base)


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
    assert recipe.lora_targets == ALL


def test_questions_come_from_relabelled_data_only(tmp_path: Path):
    with pytest.raises(SourceError, match="chatvla relabel"):
        LanguageSource(tmp_path, Vlm2VlaConfig())
