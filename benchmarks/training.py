# SPDX-License-Identifier: Apache-2.0
"""Measure what feeding the model costs in training, and what kept features save in stage 2.

The tiny model with 8 experts on bench pictures of 320x240, image-text to robot samples 1:3, float32, one thread.
- Loader alone: samples per second that the worker makes.
- Loader cost: a training step fed by the loader over the same step, next to it in time, fed from memory; median of the
  pairs' ratios, minus 1.
- Stage 2: samples per second with kept features over those without, both with their loaders.
Runs alternate; samples per second are those of the lower quartile of the steps: other work disturbs it least.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from chatvla_policy.runtime.host_memory import keep_freed_memory
from chatvla_sim.benches import make_bench
from chatvla_training.build_data import Collate, half_widths, make_mixture, robot_data, robot_setups
from chatvla_training.build_model import StartModel, start_model
from chatvla_training.data.assemble import assemble
from chatvla_training.data.features import FeatureCollate
from chatvla_training.data.mixture import Group, Mixture
from chatvla_training.data.record import EpisodeRecord, encode_image, save_record
from chatvla_training.data.stream import BatchStream, LoadedBatch
from chatvla_training.demos.thoughts import episode_facts, reworded
from chatvla_training.devices import make_accelerator
from chatvla_training.keep_features import keep_features
from chatvla_training.recipe import Recipe
from chatvla_training.trainer.loop import LoopSettings, Trainer
from chatvla_training.trainer.run_folder import RunFolder
from chatvla_training.trainer.task import FeatureTask, TrainingTask, VlaTask

__all__ = ["measure"]

BATCH = 16
STAGE2_BATCH = 64
PAIRS = 14
STEPS = 4
"""Steps timed in a run of stage 2; two more come before them."""
SCENES = 6
ROWS = 60
WORKERS = 1


class _InTurns:
    """Every batch twice: once from memory and once from the loader, first one way round and then the other."""

    def __init__(self, stream: BatchStream) -> None:
        self._stream = stream
        self._memory = [stream[number] for number in range(PAIRS + 1)]

    def iterate(self, start: int, stop: int, *, workers: int) -> Iterator[LoadedBatch[Any]]:
        """Yield batches `start` to `stop` - 1 of the doubled stream."""
        made = self._stream.iterate(0, PAIRS + 1, workers=workers)
        for number, kept in enumerate(self._memory):
            if number % 2:
                yield next(made)
                yield kept
            else:
                yield kept
                yield next(made)


def measure() -> dict[str, dict[str, Any]]:
    """Return the figures of loader and kept features; takes about a minute and a half."""
    keep_freed_memory()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        recipe = _recipe(folder)
        robot = robot_data(recipe)
        start = start_model(recipe, robot.specs(recipe.robot))
        setups = robot_setups(recipe, robot, start.robots)
        collate = Collate(start.model, start.codec, setups)
        widths = half_widths(setups)
        stream = BatchStream(make_mixture(recipe, robot), collate, batch=BATCH)
        alone = _loader_alone(stream)
        task = VlaTask(start.model, widths)
        seconds = _step_seconds(recipe, task, _InTurns(stream), folder / "pairs", steps=2 * PAIRS + 2)
        pairs = [(seconds[2 * n], seconds[2 * n + 1]) for n in range(PAIRS)]
        # The first pair is left out, so that pair 0 here is number 1 there: loader first.
        fed = [pair[1 - n % 2] for n, pair in enumerate(pairs)]
        loaded = [pair[n % 2] for n, pair in enumerate(pairs)]
        cost = median(slow / fast for slow, fast in zip(loaded, fed, strict=True)) - 1
        return {
            "loader_alone": _figure(alone, "samples/s", None, "higher"),
            "training_from_memory": _figure(BATCH / _typical(fed), "samples/s", None, "higher"),
            "training_with_loader": _figure(BATCH / _typical(loaded), "samples/s", None, "higher"),
            "loader_cost": _figure(cost, "ratio", 0.10, "lower"),
            **_stage2(recipe, start, collate, widths, folder),
        }


def _stage2(
    recipe: Recipe, start: StartModel, collate: Collate, widths: dict[str, torch.Tensor], folder: Path
) -> dict[str, dict[str, Any]]:
    recipe = replace(recipe, stage="stage2", ratio=(0, 1), cache_features=True, cache_draws=2)
    start.model.set_stage("stage2")  # type: ignore[arg-type]
    robot = robot_data(recipe)
    whole = BatchStream(
        Mixture([Group(name="robot", share=1, sources=robot.train)], seed=0), collate, batch=STAGE2_BATCH
    )
    accelerator = make_accelerator(recipe)
    kept = keep_features(recipe, start.model, collate, robot.train[0], folder / "kept", accelerator, init="bench")
    mixture = Mixture([Group(name="robot", share=1, sources=(kept,))], seed=0)
    features = BatchStream(mixture, FeatureCollate(collate.statistics), batch=STAGE2_BATCH)
    without, with_kept = [], []
    for turn in range(2):
        without += _step_seconds(recipe, VlaTask(start.model, widths), whole, folder / f"without{turn}")
        with_kept += _step_seconds(recipe, FeatureTask(start.model, widths), features, folder / f"with{turn}")
    return {
        "stage2_without_features": _figure(STAGE2_BATCH / _typical(without), "samples/s", None, "higher"),
        "stage2_with_features": _figure(STAGE2_BATCH / _typical(with_kept), "samples/s", None, "higher"),
        "stage2_features_gain": _figure(_typical(without) / _typical(with_kept), "ratio", 5.0, "higher"),
    }


def _typical(seconds: list[float]) -> float:
    """Return the lower quartile."""
    return sorted(seconds)[len(seconds) // 4]


def _figure(value: float, unit: str, bar: float | None, better: str) -> dict[str, Any]:
    return {"value": round(value, 3), "unit": unit, "bar": bar, "better": better}


def _loader_alone(stream: BatchStream) -> float:
    """Return samples per second of the workers alone, the first batch left out."""
    batches = stream.iterate(0, 14, workers=WORKERS)
    next(batches)
    started = time.perf_counter()
    count = sum(len(loaded.ids) for loaded in batches)
    return count / (time.perf_counter() - started)


def _step_seconds(
    recipe: Recipe, task: TrainingTask, stream: Any, folder: Path, *, steps: int = STEPS + 2
) -> list[float]:
    """Return the seconds of each step, the first two left out."""
    run = RunFolder(folder)
    settings = LoopSettings(
        steps=steps, lr=1e-5, lr_end=1e-5, schedule="constant", workers=WORKERS, checkpoint_every=10**6
    )
    Trainer(settings, task, stream, run=run, accelerator=make_accelerator(recipe)).train()
    seconds = [line["seconds"] for line in run.metrics()]
    run.close()
    return seconds[2:]


def _recipe(folder: Path) -> Recipe:
    """Make a small robot data set and image-text file of bench pictures; return a recipe that reads them."""
    bench = make_bench("math_match")
    paths, entries = [], []
    for seed in range(SCENES):
        truth = bench.reset(split="in_domain", seed=seed)
        bench.step(0.2)
        picture = bench.render(bench.views[0])
        facts = episode_facts(truth)
        Image.fromarray(picture).save(folder / f"{seed}.jpg", quality=90)
        turns = [{"from": "human", "value": "<image>\nWhat is on the board?"}, {"from": "gpt", "value": truth.equation}]
        entries.append({"id": seed, "image": f"{seed}.jpg", "conversations": turns})
        rng = np.random.default_rng(seed)
        way = np.array(bench.spec.home) + np.cumsum(rng.normal(0, 0.002, (ROWS, bench.spec.width)), axis=0)
        frame_rows = np.arange(0, ROWS, 5)
        record = EpisodeRecord(
            instruction=truth.instruction,
            rate_hz=bench.spec.rate_hz,
            states=way.astype(np.float32),
            actions=way.astype(np.float32),
            frame_rows=frame_rows,
            frames={bench.views[0]: [encode_image(picture)] * len(frame_rows)},
            reasoning=[reworded(facts, "", seed)] * len(frame_rows),
            facts=facts,
        )
        paths.append(folder / f"{seed}.npz")
        save_record(record, paths[-1])
    names, robot = bench.spec.joint_names, bench.spec.name
    bench.close()
    (folder / "chat.json").write_text(json.dumps(entries))
    assemble(paths, folder / "set", robot=robot, joint_names=names, provenance={}, validation_share=0.0)
    return Recipe(
        name="bench",
        summary="",
        stage="stage1",
        size="tiny",
        moe="dynamic",
        data=str(folder / "set"),
        image_text=f"qa={folder / 'chat.json'}",
        steps=STEPS + 2,
        batch=BATCH,
        micro_batch=BATCH,
        precision="fp32",
    )
