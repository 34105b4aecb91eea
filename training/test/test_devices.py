# SPDX-License-Identifier: Apache-2.0
"""On several devices, or on another one, a run is the run that it is on one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from chatvla_control.robot_spec import robot_spec
from chatvla_training.build_data import Collate
from chatvla_training.build_model import start_model
from chatvla_training.objectives import Built, make_objective
from chatvla_training.recipes import find_recipe
from chatvla_training.synthetic.sources import open_source

from .small_runs import small_recipe

BOTH = """
import json, sys
from pathlib import Path
import torch
from chatvla_training.recipe import Recipe
from chatvla_training.training_run import train_recipe
torch.set_num_threads(1)
values, out = json.loads(sys.argv[1]), Path(sys.argv[2])
values["ratio"] = tuple(values["ratio"])
for every in (0, 2):
    train_recipe(Recipe(**(values | {"validate_every": every})), out / str(every))
"""
"""A run without validation, and one with one after its second step."""


@pytest.mark.slow
def test_validation_on_averages_leaves_sharded_training_as_it_is(tmp_path: Path, arm_data: Path, llava_file: Path):
    recipe = small_recipe(
        arm_data, llava_file, ratio=(0, 1), steps=3, lr=1e-2, warmup=0, schedule="constant", checkpoint_every=9
    )
    (tmp_path / "both.py").write_text(BOTH)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "both.py"), json.dumps(recipe.to_dict()), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("0", "2")
    ]
    assert [line["step"] for line in runs[1] if "validation" in line] == [2, 3]
    assert len(list((tmp_path / "2/state/step-00000003").iterdir())) == 2
    plain, validated = ([line["loss"] for line in run if "loss" in line] for run in runs)
    assert validated == plain


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("recipe", "objective", "source"),
    [("tiny_align", "align", "labelled"), ("tiny_toys_align", "objects_align", "toys_labelled")],
)
def test_aligning_on_a_gpu_has_the_loss_of_a_cpu(recipe: str, objective: str, source: str):
    chosen = replace(find_recipe(recipe), init="", init_vision="", size="micro", objective=objective)
    start = start_model(chosen, [robot_spec("arx_r5")])
    built = Built(recipe=chosen, start=start, collate=Collate(start.model, start.codec, ()), half_width={})
    task, collate = make_objective(built)
    batch = collate([open_source(source, 3).sample(index, 0) for index in range(2)])
    losses = []
    for name in ("cpu", "cuda"):
        device = torch.device(name)
        losses.append(float(task.module.to(device)(task.place(batch, device)).language_sum.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
