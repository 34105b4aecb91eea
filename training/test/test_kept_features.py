# SPDX-License-Identifier: Apache-2.0
"""Stage 2 on kept features is stage 2 on the whole model; and what a run learns of its texts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chatvla_policy.processing.stated_numbers import stated_numbers
from chatvla_training.build_data import Collate, robot_data, robot_setups
from chatvla_training.build_model import start_model
from chatvla_training.data import features
from chatvla_training.data.features import FeatureCollate, wording
from chatvla_training.devices import make_accelerator
from chatvla_training.keep_features import keep_features
from chatvla_training.trainer.task import FeatureTask, VlaTask
from chatvla_training.training_run import learn_texts, train_recipe

from .small_runs import small_recipe, with_damaged_picture


def test_kept_features_give_the_loss_of_the_whole_model(stage1: Path, tmp_path: Path, arm_data, llava_file):
    recipe = small_recipe(
        arm_data,
        llava_file,
        stage="stage2",
        moe="keep",
        init=str(stage1 / "policy"),
        reword=False,
        cache_dtype="float32",
    )
    recipe = replace(recipe, cache_features=True)
    robot = robot_data(recipe)
    start = start_model(recipe, robot.specs("arx_r5"))
    setups = robot_setups(recipe, robot, start.robots)
    collate = Collate(start.model, start.codec, setups)
    data = robot.train[0]
    source = keep_features(recipe, start.model, collate, data, tmp_path, make_accelerator(recipe), init="x")
    chosen = [0, 4, 7]
    whole = collate([data.sample(index, 0) for index in chosen])
    kept = FeatureCollate(collate.statistics)([source.sample(index, 0) for index in chosen])
    start.model.eval()
    loss = [
        task.module(batch, generator=torch.Generator().manual_seed(1)).total()
        for task, batch in ((VlaTask(start.model, {}), whole), (FeatureTask(start.model, {}), kept))
    ]
    assert loss[0].item() == pytest.approx(loss[1].item(), rel=1e-5)


def test_kept_features_know_the_numbers_of_their_own_wording(
    stage1: Path, tmp_path: Path, arm_data, llava_file, monkeypatch: pytest.MonkeyPatch
):
    recipe = small_recipe(arm_data, llava_file, stage="stage2", moe="keep", init=str(stage1 / "policy"))
    recipe = replace(recipe, cache_features=True, cache_draws=2, brief=0.5)
    robot = robot_data(recipe)
    start = start_model(recipe, robot.specs("arx_r5"))
    collate = Collate(start.model, start.codec, robot_setups(recipe, robot, start.robots))
    data = robot.train[0]
    source = keep_features(recipe, start.model, collate, data, tmp_path, make_accelerator(recipe), init="x")
    seen = [source.sample(index, draw) for index in range(len(data)) for draw in range(2)]
    texts = [data.text(*wording(data, number, draws=2, seed=recipe.seed)) for number in range(2 * len(data))]
    assert len(set(texts)) > len(data)
    for sample, text in zip(seen, texts, strict=True):
        assert len(sample.hidden_LV) == len(start.codec.reasoning(text)) + 1
        np.testing.assert_array_equal(sample.numbers, stated_numbers(text))
    # The episodes here last 0.6 s.
    monkeypatch.setattr(features, "START_S", 0.3)
    often = keep_features(
        replace(recipe, starts=3), start.model, collate, data, tmp_path, make_accelerator(recipe), init="x"
    )
    firsts = [index for index in range(len(data)) if data.seconds_into_episode(index) < 0.3]
    assert 0 < len(firsts) < len(data)
    assert len(often) == len(source) + 2 * len(firsts)
    for number, index in enumerate(index for index in firsts for _ in range(2)):
        again, once = often.sample(len(data) + number, 1), source.sample(index, 1)
        assert again.id == once.id
        np.testing.assert_array_equal(again.numbers, once.numbers)
        assert torch.equal(again.hidden_LV, once.hidden_LV)


def test_a_damaged_picture_is_left_out_and_named(stage1: Path, tmp_path: Path, arm_data: Path, llava_file: Path):
    damaged = with_damaged_picture(arm_data, tmp_path / "set", row=40)
    recipe = small_recipe(damaged, llava_file, stage="stage2", moe="keep", init=str(stage1 / "policy"), micro_batch=2)
    recipe = replace(recipe, cache_features=True, cache_draws=3, starts=2, ratio=(0, 1))
    train_recipe(recipe, tmp_path / "run")
    (line,) = (json.loads(line) for line in (tmp_path / "run/skipped.jsonl").read_text().splitlines())
    assert (line["step"], line["sample"]) == (0, "set:train/episode-000001/row-10")
    assert "image" in line["reason"]
    robot = robot_data(recipe)
    start = start_model(recipe, robot.specs("arx_r5"))
    collate = Collate(start.model, start.codec, robot_setups(recipe, robot, start.robots))
    kept = [
        keep_features(recipe, start.model, collate, data, tmp_path / name, make_accelerator(recipe), init="x")
        for name, data in (
            ("some", robot.train[0]),
            ("all", robot_data(replace(recipe, data=str(arm_data))).train[0]),
        )
    ]
    assert [len(source) for source in kept] == [2 * 8, 2 * 9]  # Of episodes of 0.6 s all is beginning.
    whole = [index for index in range(9) if index != 4]
    for place, index in enumerate([*whole, *whole]):
        for draw in range(3):
            sample = kept[0].sample(place, draw)
            same = kept[1].sample(index, draw)
            assert sample.id.partition("/")[2] == same.id.partition("/")[2] == f"frame-{index}"
            torch.testing.assert_close(sample.hidden_LV, same.hidden_LV, rtol=1e-2, atol=1e-2)
            np.testing.assert_array_equal(sample.state, same.state)
            np.testing.assert_array_equal(sample.actions, same.actions)
            np.testing.assert_array_equal(sample.numbers, same.numbers)


def test_a_run_learns_how_its_texts_begin_and_how_long_they_serve(tmp_path: Path, arm_data: Path, llava_file: Path):
    recipe = small_recipe(arm_data, llava_file, text_age_s=1.5)
    robot = robot_data(recipe)
    start = start_model(recipe, robot.specs("arx_r5"))
    learn_texts(start, robot, recipe)
    assert start.model.config.text_age_s == 1.5
    firsts = {start.codec.text([token]).strip() for token in start.model.config.openings}
    begun = {data.text(0, draw).split()[0] for data in robot.train for draw in range(50)}
    assert firsts
    assert all(any(word.startswith(first) for word in begun) for first in firsts)
