# SPDX-License-Identifier: Apache-2.0
"""Do one training run from recipe to checkpoint."""

from __future__ import annotations

import math
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from chatvla_control.robot_spec import UnknownRobotError
from chatvla_policy.checkpoint import Checkpoint, CheckpointError, RobotSetup, save_checkpoint
from chatvla_policy.model.backbone import BackboneError
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_policy.systems import policy_class
from chatvla_policy.vlm2vla.processors import ProcessorError
from chatvla_training.build_data import (
    Collate,
    RobotData,
    half_widths,
    make_mixture,
    robot_data,
    robot_setups,
)
from chatvla_training.build_model import StartModel, start_model
from chatvla_training.data.episodes import DatasetError, EpisodeDataset
from chatvla_training.data.errors import SourceError
from chatvla_training.data.features import FeatureCollate
from chatvla_training.data.mixture import Group, Mixture
from chatvla_training.data.stream import BatchStream
from chatvla_training.devices import make_accelerator, micro_batches
from chatvla_training.keep_features import keep_features
from chatvla_training.keep_golden import save_with_golden
from chatvla_training.lora import add_lora, fold_lora
from chatvla_training.objectives import Built, make_objective
from chatvla_training.provenance import commit
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.run_start import start_hashes
from chatvla_training.system_runs import SYSTEM_RUNS, train_system
from chatvla_training.trainer.loggers import LoggerMissingError, make_logger
from chatvla_training.trainer.loop import LoopSettings, NotFiniteError, Trainer
from chatvla_training.trainer.run_folder import RunFolder, RunFolderError
from chatvla_training.trainer.state import StateError
from chatvla_training.trainer.task import FeatureTask, TrainingTask
from chatvla_training.trainer.tensors import full

__all__ = ["RUN_ERRORS", "claim", "loop_settings", "train_recipe"]

RUN_ERRORS = (
    BackboneError,
    CheckpointError,
    DatasetError,
    LoggerMissingError,
    NotFiniteError,
    ProcessorError,
    RecipeError,
    RunFolderError,
    SourceError,
    StateError,
    UnknownRobotError,
    OSError,
)

TEXTS_LOOKED_AT = 1000
REWORDED_LONGER = 1.2
"""How much longer another wording may be than the longest that was looked at."""


def train_recipe(recipe: Recipe, folder: Path) -> Path:
    """Train `recipe` in run folder `folder` and return the folder of its checkpoint; a finished run returns at once.

    Raises one of RUN_ERRORS, each with a sentence that says what to do.
    """
    accelerator = make_accelerator(recipe)
    run = RunFolder(folder, writes=accelerator.is_main_process)
    other = SYSTEM_RUNS.get(recipe.system)
    try:
        starts = start_hashes(recipe, run)
        if other is None:
            return _train(recipe, run, accelerator, starts)
        return train_system(other, recipe, run, accelerator, starts)
    finally:
        run.close()


def _train(recipe: Recipe, run: RunFolder, accelerator: Accelerator, starts: dict[str, str]) -> Path:
    robot = robot_data(recipe)
    mixture = make_mixture(recipe, robot)
    config = claim(recipe, run, accelerator, mixture, starts)
    if run.finished:
        return run.policy
    started = time.monotonic()
    start = start_model(recipe, robot.specs(recipe.robot))
    _check_system(recipe, start)
    make_room_for_texts(start, robot)
    learn_texts(start, robot, recipe)
    setups = robot_setups(recipe, robot, start.robots)
    if recipe.lora_rank:
        add_lora(
            start.model,
            rank=recipe.lora_rank,
            alpha=recipe.lora_alpha,
            targets=recipe.lora_targets,
            seed=recipe.seed,
        )
    task, stream, held = _task(recipe, run, accelerator, robot, mixture, start, setups)
    trainer = Trainer(
        loop_settings(recipe, accelerator.num_processes),
        task,
        stream,
        run=run,
        accelerator=accelerator,
        validation=held,
        log=make_logger(recipe.log if run.writes else "none", run.path, config),
    )
    trainer.train()
    _export(recipe, run, accelerator, trainer, start, setups, robot, config, seconds=time.monotonic() - started)
    return run.policy


def _feature_folders(sets: Sequence[EpisodeDataset]) -> list[str]:
    """Return what the folder of each data set's kept features is called: its name, and a hash where two have one."""
    places = {data.folder.resolve(): data.folder.name for data in sets}
    again = {name for name in places.values() if list(places.values()).count(name) > 1}
    return [
        f"{data.folder.name}-{data.sha256()[:12]}" if data.folder.name in again else data.folder.name for data in sets
    ]


def _check_system(recipe: Recipe, start: StartModel) -> None:
    """Raise RecipeError now where the checkpoint could not be loaded as one of its system after the last step."""
    unfit = getattr(policy_class(recipe.system), "unfit", lambda config: "")
    if recipe.stage != "language" and (reason := unfit(start.model.config)):
        raise RecipeError(f"system {recipe.system!r}: {reason}; change init, moe, conditioning or system")


def make_room_for_texts(start: StartModel, robot: RobotData) -> None:
    """Lengthen the model's longest reasoning, in place, where the data's texts do not fit: they would be cut."""
    texts = [text for data in robot.train for text in data.texts()[:: max(1, len(data) // TEXTS_LOOKED_AT)]]
    longest = 1 + max((len(start.codec.reasoning(text)) for text in texts), default=0)
    if longest > start.model.config.max_reasoning_tokens:
        room = 8 * math.ceil(REWORDED_LONGER * longest / 8)
        start.model.config = replace(start.model.config, max_reasoning_tokens=room)


def learn_texts(start: StartModel, robot: RobotData, recipe: Recipe) -> None:
    """Tell the model, in place, how long its texts may serve and with which tokens they begin: as in the robot data.

    Where some of its texts are empty, with any.
    """
    start.model.config = replace(start.model.config, text_age_s=recipe.text_age_s)
    found = set(start.model.config.openings)
    for data in robot.train:
        for index in range(0, len(data), max(1, len(data) // TEXTS_LOOKED_AT)):
            ids = start.codec.reasoning(data.text(index, draw=index))
            if not ids:
                return
            found.add(ids[0])
    start.model.config = replace(start.model.config, openings=tuple(sorted(found)))


def claim(
    recipe: Recipe, run: RunFolder, accelerator: Accelerator, mixture: Mixture, starts: dict[str, str]
) -> dict[str, Any]:
    """Take the run folder for this recipe and data, say what was left out, and return the run's description.

    `starts` are the fingerprints of what it starts from.
    """
    config = {
        "recipe": recipe.to_dict(),
        **starts,
        "seed": recipe.seed,
        "commit": commit(),
        "data": mixture.sha256(),
        "left_out": mixture.left_out(),
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "devices": accelerator.num_processes,
            "device": str(accelerator.device),
        },
    }
    run.claim(config, said_now={"recipe": Recipe.said_now})
    for name, reasons in mixture.left_out().items() if run.writes else ():
        print(
            f"{name}: left out {', '.join(f'{count} ({reason})' for reason, count in reasons.items())}", file=sys.stderr
        )
    return config


def _task(
    recipe: Recipe,
    run: RunFolder,
    accelerator: Accelerator,
    robot: RobotData,
    mixture: Mixture,
    start: StartModel,
    setups: tuple[RobotSetup, ...],
) -> tuple[TrainingTask, BatchStream, BatchStream | None]:
    """Return what is trained, on which batches, and the held-out batches."""
    collate = Collate(start.model, start.codec, setups)
    widths: dict[str, Tensor] = half_widths(setups)
    place: dict[str, Any] = {
        "batch": recipe.micro_batch,
        "rank": accelerator.process_index,
        "world": accelerator.num_processes,
    }
    held_sources: tuple[Any, ...] = robot.validation
    function: Any
    if recipe.cache_features:
        if len({data.robot for data in robot.train}) != 1:
            raise RecipeError("cache_features takes the data of one robot; give --cache_features false for several")
        sets = (*robot.train, *robot.validation)
        kept = [
            keep_features(
                recipe,
                start.model,
                collate,
                data,
                run.path / "features" / name,
                accelerator,
                init=start.origin.get("init_sha256", start.origin["init"]),
                unreadable=lambda error: run.skip(0, error.sample, error.reason),
            )
            for data, name in zip(sets, _feature_folders(sets), strict=True)
        ]
        task: TrainingTask = FeatureTask(start.model, widths)
        function = FeatureCollate(collate.statistics)
        train = tuple(kept[: len(robot.train)])
        mixture = Mixture([Group(name="robot", share=1, sources=train)], seed=recipe.seed)
        held_sources = tuple(kept[len(robot.train) :])
    else:
        built = Built(recipe=recipe, start=start, collate=collate, half_width=widths)
        task, function = make_objective(built)
    stream = BatchStream(mixture, function, **place)
    if not held_sources:
        return task, stream, None
    held = Mixture([Group(name="validation", share=1, sources=held_sources)], seed=0)
    return task, stream, BatchStream(held, function, batch=recipe.micro_batch)


def loop_settings(recipe: Recipe, world: int) -> LoopSettings:
    """Return the recipe's part that the training loop reads."""
    return LoopSettings(
        steps=recipe.steps,
        lr=recipe.lr,
        lr_end=recipe.lr_end,
        schedule=recipe.schedule,
        warmup=recipe.warmup,
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
        accumulate=micro_batches(recipe, world),
        ema=recipe.ema,
        seed=recipe.seed,
        workers=recipe.workers,
        validate_every=recipe.validate_every,
        validation_batches=recipe.validation_batches,
        checkpoint_every=recipe.checkpoint_every,
        keep=recipe.keep,
        shard=recipe.shard,
    )


def _export(
    recipe: Recipe,
    run: RunFolder,
    accelerator: Accelerator,
    trainer: Trainer,
    start: StartModel,
    setups: tuple[RobotSetup, ...],
    robot: RobotData,
    config: dict[str, Any],
    *,
    seconds: float,
) -> None:
    """Save the averaged weights, adapters folded in, as the run's checkpoint; with a golden input of held-out data."""
    model = _whole_model(recipe, accelerator, trainer, start)
    if model is not None:
        fold_lora(model)
        provenance = {
            **config,
            **start.origin,
            "validation": [line for line in run.metrics() if "validation" in line][-1:],
            "seconds_of_last_process": round(seconds, 1),
        }
        checkpoint = Checkpoint(model=model.eval(), codec=start.codec, robots=setups, provenance=provenance)
        if recipe.stage == "language":
            save_checkpoint(run.policy, checkpoint, storage=recipe.storage)
        else:
            save_with_golden(run.policy, checkpoint, (*robot.validation, *robot.train), storage=recipe.storage)
    accelerator.wait_for_everyone()


def _whole_model(recipe: Recipe, accelerator: Accelerator, trainer: Trainer, start: StartModel) -> ChatVLA2 | None:
    """Return the model with averaged weights, gathered from all devices; None on devices that do not save."""
    trainer.ema.write()
    model = start.model
    if not trainer.sharded:
        return model.cpu() if accelerator.is_main_process else None
    values: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        # Every device takes part in gathering, but one alone has room on the host for the whole.
        whole = full(parameter.detach())
        if accelerator.is_main_process:
            values[name] = whole.cpu()
    if not accelerator.is_main_process:
        return None
    plain = ChatVLA2(model.config)
    if recipe.lora_rank:
        add_lora(plain, rank=recipe.lora_rank, alpha=recipe.lora_alpha, targets=recipe.lora_targets, seed=recipe.seed)
    plain.load_state_dict(values, strict=False)
    return plain
