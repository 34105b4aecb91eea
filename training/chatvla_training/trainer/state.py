# SPDX-License-Identifier: Apache-2.0
"""Save and restore all that training changes: trained weights, optimiser, averages, step.

One safetensors file a device. Data position and random numbers are functions of the step (see loop.py), and so is the
learning rate: nothing else is needed for the same losses to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from chatvla_training.trainer.ema import Ema
from chatvla_training.trainer.tensors import local

__all__ = ["StateError", "load_state", "save_state"]

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class StateError(RuntimeError):
    """A training state does not fit the model; the message names the first mismatch."""


def save_state(
    folder: Path,
    *,
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    ema: Ema,
    rank: int,
    world: int,
) -> None:
    """Write this device's part of the state after `step` into `folder`."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"weight/{name}"] = local(parameter.detach()).contiguous()
        for moment, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{moment}/{name}"] = local(value).contiguous()
    tensors |= {f"ema/{name}": value for name, value in ema.shadow.items()}
    tensors = {name: value.cpu() for name, value in tensors.items()}
    save_file(tensors, folder / f"rank-{rank:04d}.safetensors", metadata={"step": str(step), "world": str(world)})


def load_state(
    folder: Path,
    *,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    ema: Ema,
    rank: int,
    world: int,
) -> int:
    """Restore what `save_state` wrote and return its step. Raises StateError for another model or number of devices."""
    path = folder / f"rank-{rank:04d}.safetensors"
    if not path.exists():
        raise StateError(f"{folder} has no part for device {rank}: it was saved by fewer than {world} devices")
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        if int(header["world"]) != world:
            raise StateError(f"{folder} was saved by {header['world']} devices, now there are {world}; use as many")
        names = set(file.keys())
        for name, parameter in parameters.items():
            target = local(parameter.detach())
            if f"weight/{name}" not in names:
                raise StateError(f"{folder} holds no weight {name}")
            saved = file.get_tensor(f"weight/{name}")
            if saved.shape != target.shape:
                raise StateError(
                    f"weight {name} is {tuple(saved.shape)} in {folder}, {tuple(target.shape)} in the model"
                )
            target.copy_(saved)
            moments = {moment: file.get_tensor(f"{moment}/{name}") for moment in MOMENTS if f"{moment}/{name}" in names}
            if moments:
                optimiser.state[parameter] = {
                    moment: _like(value, parameter, moment) for moment, value in moments.items()
                }
            if name in ema.shadow:
                ema.shadow[name].copy_(file.get_tensor(f"ema/{name}"))
    return int(header["step"])


def _like(value: Tensor, parameter: nn.Parameter, moment: str) -> Tensor:
    """Return an optimiser moment placed and sharded as its parameter is; the step count stays where AdamW keeps it."""
    if moment == "step":
        return value
    made = torch.zeros_like(parameter, memory_format=torch.preserve_format).detach()
    local(made).copy_(value)
    return made
