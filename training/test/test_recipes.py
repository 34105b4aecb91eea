# SPDX-License-Identifier: Apache-2.0
"""Recipes: the paper's numbers, keys by name, clear refusals; and the small parts of the loop."""

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from chatvla_policy.model.action import config
from chatvla_training.devices import micro_batches
from chatvla_training.recipe import Conditioning, RecipeError, changed
from chatvla_training.recipes import PLANS, RECIPES, find_recipe
from chatvla_training.train import for_devices, main, parse, planned, words_of
from chatvla_training.trainer.ema import Ema
from chatvla_training.trainer.plot import loss_plot, thinned
from chatvla_training.trainer.schedule import learning_rate


@pytest.mark.parametrize(("name", "steps"), [("stage1", 50_000), ("stage1_15k", 15_000), ("stage2", 50_000)])
def test_paper_settings(name: str, steps: int):
    recipe = RECIPES[name]
    assert (recipe.steps, recipe.lr, recipe.lr_end, recipe.warmup) == (steps, 2e-5, 2e-6, 3000)
    assert (recipe.schedule, recipe.precision) == ("cosine", "bf16")
    assert recipe.ratio == ((0, 1) if name == "stage2" else (1, 3))
    assert recipe.stage == name.split("_")[0]


def test_stage1_is_the_papers_mixture():
    assert (RECIPES["stage1"].moe, RECIPES["stage1"].experts, RECIPES["stage1"].top_k) == ("dynamic", 8, 2)


def test_learning_rate_warms_up_and_falls_to_its_end():
    settings = {"schedule": "cosine", "lr": 2e-5, "lr_end": 2e-6, "warmup": 3000, "steps": 50_000}
    assert learning_rate(1, **settings) == pytest.approx(2e-5 / 3000)
    assert learning_rate(3000, **settings) == pytest.approx(2e-5)
    assert learning_rate(26_500, **settings) == pytest.approx(1.1e-5)
    assert learning_rate(50_000, **settings) == pytest.approx(2e-6)
    tail = {"schedule": "tail", "lr": 1.0, "lr_end": 0.0, "warmup": 0, "steps": 100}
    assert [learning_rate(step, **tail) for step in (1, 50, 75, 100)] == [1.0, 1.0, 0.5, 0.0]


def test_keys_are_read_by_type():
    recipe = changed(
        RECIPES["stage1"], {"lr": "1e-4", "batch": "64", "reword": "false", "ratio": "1:3", "micro-batch": "8"}
    )
    assert (recipe.lr, recipe.batch, recipe.reword, recipe.ratio, recipe.micro_batch) == (1e-4, 64, False, (1, 3), 8)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"learning_rat": "1"}, "Keys: stage"),
        ({"warmpu": "1"}, "did you mean --warmup"),
        ({"steps": "many"}, "expected int"),
        ({"precision": "fp8"}, "'fp32', 'bf16'"),
        ({"ratio": "1"}, "1:3"),
        ({"cache_features": "true"}, "stage2"),
        ({"starts": "2"}, "cache_features"),
        ({"starts": "0"}, "at least 1"),
        ({"text_age_s": "-1"}, "negative"),
        ({"steps": "0"}, "at least 1"),
        ({"seed": "-1"}, "seed is -1, must not be negative"),
        ({"clip": "0"}, "clip is 0.0, must be positive"),
        ({"experts": "0"}, "experts is 0, must be at least 1"),
        ({"experts": "2", "top_k": "4"}, "top_k is 4 of 2 experts"),
        ({"z_weight": "-1"}, "z_weight is -1.0, must not be negative"),
        ({"conditioning": "foo"}, "conditioning is 'foo'; it must be one of: 'latter_half'"),
        ({"system": "dense_flim"}, "system is 'dense_flim'; it must be one of: chatvla2"),
        ({"normalisation": "mean_std"}, "one standard deviation"),
        ({"normalisation": "mean_std", "action_size": "H"}, "give quantile or min_max, or one of the sizes compact"),
    ],
)
def test_wrong_keys_and_values_are_refused(values, says):
    with pytest.raises(RecipeError, match=says):
        changed(RECIPES["stage1"], values)


def test_every_conditioning_of_the_model_can_be_asked_for():
    assert get_args(Conditioning) == get_args(config.Conditioning)


def test_adapters_are_refused_where_what_they_adapt_is_not_trained():
    with pytest.raises(RecipeError, match="stage2 does not train"):
        changed(RECIPES["stage2"], {"lora_rank": "16"})


def test_an_expert_that_does_not_clip_may_be_normalised_by_mean_std():
    assert changed(RECIPES["stage1"], {"normalisation": "mean_std", "action_size": "compact"})
    assert changed(RECIPES["stage2"], {"normalisation": "mean_std"}).keeps_expert


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean stage1"):
        find_recipe("stag1")


def test_command_line_refuses_with_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["stage9"]) == 2
    assert "Recipes:" in capsys.readouterr().err
    assert main(["stage1", "--lr"]) == 2
    assert "needs a value" in capsys.readouterr().err
    assert main(["stage1", "--devices", "-1"]) == 2
    assert "--devices is -1" in capsys.readouterr().err
    assert main(["--help"]) == main(["tiny_stage1", "--help"]) == 0
    assert "stage1_15k" in capsys.readouterr().out


@pytest.mark.parametrize("name", PLANS)
def test_plan_finds_the_checkpoints_of_its_own_runs(name: str):
    recipes, out, devices = parse([name, "--out", "somewhere", "--seed=3", "--devices", "1", "--init", ""])
    assert devices == 1
    runs = planned(recipes, out)
    assert [folder.name for _, folder in runs] == list(PLANS[name])
    assert all(recipe.seed == 3 for recipe, _ in runs)
    assert runs[-1][0].init == str(runs[-2][1] / "policy")
    for number, (recipe, _) in enumerate(runs):
        before = {str(folder / "policy") for _, folder in runs[:number]}
        outside = {init for init in (recipe.init, recipe.init_vision) if init and not init.startswith("somewhere")}
        assert {recipe.init, recipe.init_vision} - {""} - outside <= before
        assert not any(Path(init).parent.name in PLANS[name] for init in outside)


def test_words_of_a_recipe_make_it_again():
    recipe = replace(find_recipe("tiny_stage1"), seed=5, ratio=(1, 2), shard=True, lr=0.25, init="runs/x/policy")
    words = words_of(recipe)
    again, _, _ = parse(words)
    assert again == [recipe]
    assert words[0] == "tiny_stage1"
    assert "--steps" not in words


def test_batch_is_shared_by_the_devices():
    recipe = find_recipe("tiny_align")
    assert for_devices(recipe, 1) == recipe
    assert for_devices(recipe, 2).micro_batch == recipe.batch // 2
    assert micro_batches(for_devices(recipe, 2), 2) == 1


def test_average_follows_the_weights():
    weight = torch.nn.Parameter(torch.zeros(3))
    ema = Ema({"w": weight}, decay=0.5)
    with torch.no_grad():
        weight.fill_(1.0)
    ema.update(100)
    assert torch.allclose(ema.shadow["w"], torch.full((3,), 0.5))
    with ema.applied():
        assert torch.allclose(weight, torch.full((3,), 0.5))
    assert torch.allclose(weight, torch.ones(3))


def test_plot_draws_every_curve_and_leaves_out_what_has_no_logarithm():
    picture = loss_plot({"loss": [(1, 2.0), (2, 1.0), (3, math.nan)], "zero": [(1, 0.0)]}, title="a < b")
    assert picture.count("<polyline") == 1
    assert "a &lt; b" in picture
    assert len(thinned([(float(x), 1.0) for x in range(5000)])) <= 400
