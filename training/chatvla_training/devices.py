# SPDX-License-Identifier: Apache-2.0
"""Use what the machine has: one CPU, one GPU, or several; the same command for all.

With several GPUs the command starts one process for each (torch's own launcher) and they share the work: weights
sharded by FSDP where the recipe says so, else one copy each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin

from chatvla_training.recipe import Recipe, RecipeError

__all__ = ["make_accelerator", "micro_batches", "start_on_devices", "started_by_launcher", "visible_devices"]

WRAPPED = ["Qwen2VLDecoderLayer", "MoeDecoderLayer", "Qwen2VLVisionBlock", "DiTBlock"]
"""Layers that FSDP shards one by one."""


def visible_devices() -> int:
    """Return how many processes to train with: one per GPU, else one."""
    return max(1, torch.cuda.device_count())


def started_by_launcher() -> bool:
    """Return whether this process is one of several that a launcher started."""
    return "LOCAL_RANK" in os.environ


def start_on_devices(arguments: Sequence[str], devices: int) -> int:
    """Run this same command once per device and return the exit code."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={devices}",
        "-m",
        "chatvla_training.train",
        *arguments,
    ]
    return subprocess.run(command, check=False).returncode


def make_accelerator(recipe: Recipe) -> Accelerator:
    """Return accelerate's view of the devices, for the recipe's precision and sharding."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    sharded = recipe.shard and world > 1
    plugin = None
    if sharded:
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=WRAPPED,
            reshard_after_forward=True,
            state_dict_type="SHARDED_STATE_DICT",
        )
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if recipe.precision == "bf16" else "no",
        fsdp_plugin=plugin,
    )


def micro_batches(recipe: Recipe, world: int) -> int:
    """Return how many micro-batches make one optimiser step. Raises RecipeError when they don't come out even."""
    together = recipe.micro_batch * world
    if recipe.batch % together:
        raise RecipeError(
            f"batch {recipe.batch} is not a multiple of micro_batch {recipe.micro_batch} x {world} devices = {together}"
        )
    return recipe.batch // together
