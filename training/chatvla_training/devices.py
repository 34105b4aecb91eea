# SPDX-License-Identifier: Apache-2.0
"""Use what the machine has: one CPU, one GPU, or several; the same command for all.

With several GPUs the command starts one process for each (torch's own launcher) and they share the work: weights
sharded by FSDP where the recipe says so, else one copy each.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, DistributedDataParallelKwargs, InitProcessGroupKwargs, KwargsHandler
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from chatvla_control.subordinate import end_with_parent
from chatvla_training.recipe import Recipe, RecipeError

__all__ = [
    "make_accelerator",
    "micro_batches",
    "reshard",
    "spread",
    "start_on_devices",
    "started_by_launcher",
    "visible_devices",
]

SHARDED_LAYERS = ("Qwen2VLDecoderLayer", "MoeDecoderLayer", "Qwen2VLVisionBlock", "DiTBlock")
"""Layers that FSDP shards one by one."""
STOPPING_S = 3600
"""How long processes that were asked to stop may take: a step ends and its state is written, which may be gigabytes."""
WAIT = timedelta(hours=12)
"""How long processes wait for each other: the first alone keeps features (keep_features.py) and writes the checkpoint,
hours of work at which NCCL's own ten minutes would end the run."""


def visible_devices() -> int:
    """Return how many processes to train with: one per GPU, else one. Raises RecipeError for GPUs out of reach."""
    check_gpus()
    return max(1, torch.cuda.device_count())


def check_gpus() -> None:
    """Raise RecipeError where there are GPUs that torch cannot use: CPUs would train instead, and nobody be told."""
    count = torch.cuda.device_count()
    if count and not torch.cuda.is_available():
        raise RecipeError(
            f"torch finds GPUs, {count}, but cannot use them: their driver may be older than CUDA {torch.version.cuda} "
            "needs; update the driver, or set CUDA_VISIBLE_DEVICES= (to nothing) to train on CPUs"
        )


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
        # Behind the dashes nothing is an option of the launcher, such as --log.
        "--",
        "chatvla_training.train",
        *arguments,
    ]
    # In a group of its own, so that Ctrl-C comes once and from here; torch's launcher passes SIGTERM on.
    # As a variable: a torch that does not know it ignores it, and would refuse the option.
    environment = os.environ | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOPPING_S)}
    process = subprocess.Popen(command, env=environment, preexec_fn=end_with_parent(), process_group=0)

    def pass_on(number: int, frame: FrameType | None) -> None:
        del number, frame
        process.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_accelerator(recipe: Recipe) -> Accelerator:
    """Return accelerate's view of the devices, for the recipe's precision. Raises RecipeError as check_gpus does."""
    check_gpus()
    handlers: list[KwargsHandler] = [
        DistributedDataParallelKwargs(find_unused_parameters=True),
        InitProcessGroupKwargs(timeout=WAIT),
    ]
    if recipe.shard and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Autocast's cache keeps every weight that it has cast to the end of the forward: half of what sharding saves.
        handlers.append(AutocastKwargs(cache_enabled=False))
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if recipe.precision == "bf16" else "no",
        kwargs_handlers=handlers,
    )


def spread(module: nn.Module, accelerator: Accelerator, *, shard: bool) -> nn.Module:
    """Return `module` on its device: as it is on one; sharded layer by layer, or one copy each, on several."""
    world = accelerator.num_processes
    if world == 1 or not shard:
        return accelerator.prepare(module)
    mesh = init_device_mesh(accelerator.device.type, (world,))
    for name, part in reversed(list(module.named_modules())):
        # A DiT block's modulation and its memory's keys are made ahead of the block, for all denoising levels at once.
        crosses = name.endswith(".cross")
        if type(part).__name__ in SHARDED_LAYERS or crosses or name.endswith(".modulation"):
            fully_shard(part, mesh=mesh)
        for method in ("memory", "attend") if crosses else ():
            register_fsdp_forward_method(part, method)
    fully_shard(module, mesh=mesh)
    # A device's micro-batch may lack a robot whose heads another device trains: all add up the same list of gradients.
    module.set_reduce_scatter_unused_params(True)
    return module


def reshard(module: nn.Module) -> None:
    """Drop whole weights that FSDP keeps after a forward without a backward: the next forward gathers them anew."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def micro_batches(recipe: Recipe, world: int) -> int:
    """Return how many micro-batches make one optimiser step. Raises RecipeError when they don't come out even.

    On several devices each micro-batch holds whole blocks of the mixture: every device then runs the same parts of the
    model, as adding up their gradients needs.
    """
    together = recipe.micro_batch * world
    if recipe.batch % together:
        raise RecipeError(
            f"batch {recipe.batch} is not a multiple of micro_batch {recipe.micro_batch} x {world} devices = {together}"
        )
    if world > 1 and recipe.micro_batch % sum(recipe.ratio):
        raise RecipeError(
            f"micro_batch {recipe.micro_batch} on {world} devices must be a multiple of {sum(recipe.ratio)}, "
            f"the block of ratio {recipe.ratio[0]}:{recipe.ratio[1]}"
        )
    return recipe.batch // together
