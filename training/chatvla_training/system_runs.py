# SPDX-License-Identifier: Apache-2.0
"""Train systems whose model is not ChatVLA-2's: what differs is one module per system, the loop is the same.

A system's function takes (recipe, accelerator) and returns a SystemRun.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator

from chatvla_training.data.mixture import Group, Mixture
from chatvla_training.data.samples import SampleSource
from chatvla_training.data.stream import BatchStream
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.run_start import start_gone
from chatvla_training.trainer.loggers import make_logger
from chatvla_training.trainer.loop import Trainer
from chatvla_training.trainer.run_folder import RunFolder
from chatvla_training.trainer.task import TrainingTask

__all__ = ["SYSTEM_RUNS", "SystemRun", "train_system"]

SYSTEM_RUNS: Mapping[str, str] = {
    "diffusion_policy": "chatvla_training.diffusion_run:DiffusionRun",
    "vlm2vla": "chatvla_training.vlm2vla.run:Vlm2VlaRun",
}
"""`module:name` by the recipe's system; systems that are not listed are trained as ChatVLA-2 is."""


class SystemRun(Protocol):
    """One run of a system: its data, its model, its checkpoint."""

    mixture: Mixture
    held: tuple[SampleSource, ...]
    """Held-out samples; empty for none."""

    def build(self) -> tuple[TrainingTask, Callable[[Sequence[Any]], Any]]:
        """Make the model; return what is trained and how samples become batches."""
        ...

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Write the trained checkpoint as `folder`."""
        ...


def train_system(where: str, recipe: Recipe, run: RunFolder, accelerator: Accelerator, starts: dict[str, str]) -> Path:
    """Train the system whose SystemRun is `module:name`; return the folder of its checkpoint.

    `starts` are the fingerprints of what it starts from. Raises RecipeError for sharded weights: the first device saves
    what it holds.
    """
    from chatvla_training.training_run import claim, loop_settings

    if recipe.shard and accelerator.num_processes > 1:
        raise RecipeError(f"system {recipe.system} is trained with whole weights on each device; give --shard false")
    if run.finished and start_gone(recipe, starts):
        # Without its start a system opens no data: the recipe alone can be compared.
        run.check({"recipe": recipe.to_dict()}, keys=("recipe",), said_now={"recipe": Recipe.said_now})
        return run.policy
    module, _, name = where.partition(":")
    system: SystemRun = getattr(import_module(module), name)(recipe, accelerator)
    config = claim(recipe, run, accelerator, system.mixture, starts)
    if run.finished:
        return run.policy
    started = time.monotonic()
    task, collate = system.build()
    place = {"batch": recipe.micro_batch, "rank": accelerator.process_index, "world": accelerator.num_processes}
    held = None
    if system.held:
        group = Group(name="validation", share=1, sources=system.held)
        held = BatchStream(Mixture([group], seed=0), collate, batch=recipe.micro_batch)
    trainer = Trainer(
        loop_settings(recipe, accelerator.num_processes),
        task,
        BatchStream(system.mixture, collate, **place),
        run=run,
        accelerator=accelerator,
        validation=held,
        log=make_logger(recipe.log if run.writes else "none", run.path, config),
    )
    trainer.train()
    trainer.ema.write()
    if run.writes:
        validation = [line for line in run.metrics() if "validation" in line][-1:]
        seconds = round(time.monotonic() - started, 1)
        system.save(run.policy, {**config, "validation": validation, "seconds_of_last_process": seconds})
    accelerator.wait_for_everyone()
    return run.policy
