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
from accelerate.utils import AutocastKwargs, InitProcessGroupKwargs

from chatvla_control.robot_spec import robot_spec
from chatvla_training import devices
from chatvla_training.build_data import Collate
from chatvla_training.build_model import start_model
from chatvla_training.devices import make_accelerator
from chatvla_training.objectives import Built, make_objective
from chatvla_training.recipe import RecipeError
from chatvla_training.recipes import find_recipe
from chatvla_training.synthetic.sources import open_source
from chatvla_training.train import main

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


ONE_BAD = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import torch
from chatvla_training.data.episodes import EpisodeDataset
from chatvla_training.recipe import Recipe
from chatvla_training.trainer.loop import NotFiniteError
from chatvla_training.training_run import train_recipe
torch.set_num_threads(1)
values, out, rank = json.loads(sys.argv[1]), Path(sys.argv[2]), os.environ["RANK"]
values["ratio"] = tuple(values["ratio"])
whole = EpisodeDataset.sample
def poisoned(self, index, draw):
    sample = whole(self, index, draw)
    return replace(sample, state=np.full_like(sample.state, np.nan)) if rank == "1" else sample
EpisodeDataset.sample = poisoned
try:
    train_recipe(Recipe(**values), out / "run")
except NotFiniteError as error:
    (out / f"said-{rank}").write_text(str(error))
"""
"""The second process alone reads states that are no numbers."""

HEADS = """
import sys
from pathlib import Path
import torch
from accelerate import Accelerator
from torch import nn
from chatvla_training.devices import spread
from chatvla_training.trainer.tensors import full
class Robots(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, size, bias=False) for size in (2, 6))
    def forward(self, rank):
        return self.heads[rank](torch.ones(4)).sum()
accelerator = Accelerator(cpu=True)
module = spread(Robots(), accelerator, shard=True)
module(accelerator.process_index).backward()
means = [full(head.weight.grad) for head in module.heads]
if accelerator.is_main_process:
    torch.save(means, Path(sys.argv[1]) / "means.pt")
"""
"""Each process trains a head of its own."""


def two_processes(tmp_path: Path, code: str, *arguments: str) -> None:
    """Run `code` in two processes that torch's launcher starts."""
    (tmp_path / "code.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "code.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]


def test_gpus_that_torch_cannot_use_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"finds GPUs, 2, but cannot use them"):
        make_accelerator(find_recipe("tiny_align"))
    assert main(["tiny_align"]) == 1
    assert "update the driver" in capsys.readouterr().err


@pytest.mark.parametrize(("shard", "world", "cached"), [(True, "2", False), (False, "2", None), (True, "1", None)])
def test_processes_wait_for_hours_and_sharded_ones_keep_no_casts(
    shard: bool, world: str, cached: bool | None, monkeypatch: pytest.MonkeyPatch
):
    made: list[dict] = []
    monkeypatch.setattr(devices, "Accelerator", lambda **given: made.append(given))
    monkeypatch.setenv("WORLD_SIZE", world)
    make_accelerator(replace(find_recipe("tiny_align"), shard=shard))
    kinds = {type(handler): handler for handler in made[0]["kwargs_handlers"]}
    assert kinds[InitProcessGroupKwargs].timeout.total_seconds() >= 4 * 3600
    assert (kinds[AutocastKwargs].cache_enabled if AutocastKwargs in kinds else None) is cached


@pytest.mark.slow
def test_a_head_that_one_device_does_not_use_gets_the_gradient_of_the_other(tmp_path: Path):
    two_processes(tmp_path, HEADS, str(tmp_path))
    means = torch.load(tmp_path / "means.pt")
    assert [mean.shape[0] for mean in means] == [2, 6]
    assert all(bool((mean == 0.5).all()) for mean in means)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [True, False])
def test_all_devices_stop_where_one_has_a_figure_that_is_not_finite(
    shard: bool, tmp_path: Path, arm_data: Path, llava_file: Path
):
    recipe = small_recipe(arm_data, llava_file, ratio=(0, 1), batch=16, steps=1, validate_every=0, shard=shard)
    two_processes(tmp_path, ONE_BAD, json.dumps(recipe.to_dict()), str(tmp_path))
    assert "step 1: a figure of another device is not finite" in (tmp_path / "said-0").read_text()
    assert "stopped-1.json lists all" in (tmp_path / "said-1").read_text()
    assert json.loads((tmp_path / "run/stopped-1.json").read_text())["not_finite"] == ["action"]
    assert not (tmp_path / "run/stopped.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("conditioning", ["latter_half", "cross_attention"])
def test_validation_on_averages_leaves_sharded_training_as_it_is(
    conditioning: str, tmp_path: Path, arm_data: Path, llava_file: Path
):
    recipe = small_recipe(
        arm_data, llava_file, ratio=(0, 1), steps=3, lr=1e-2, warmup=0, schedule="constant", checkpoint_every=9
    )
    recipe = replace(recipe, conditioning=conditioning)
    two_processes(tmp_path, BOTH, json.dumps(recipe.to_dict()), str(tmp_path))
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
