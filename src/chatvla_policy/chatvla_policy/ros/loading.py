# SPDX-License-Identifier: Apache-2.0
"""Load the checkpoint that the parameters name, and give its memory back."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

import torch

from chatvla_control.contracts import Policy
from chatvla_policy.ros.live_graph import MismatchError
from chatvla_policy.ros.parameters import PolicyParameters
from chatvla_policy.systems import load_policy

__all__ = ["check_statistics", "load", "model_size", "release_memory", "settle_memory"]


def load(parameters: PolicyParameters) -> Policy:
    """Return the policy of the parameter `checkpoint`. Raises CheckpointError and MismatchError."""
    name = parameters.value("checkpoint")
    if not name:
        raise MismatchError("parameter checkpoint is empty; give the folder or the name of a checkpoint")
    device = parameters.value("device")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise MismatchError(f"device is {device!r}, but torch sees no CUDA device; use device:=cpu")
    try:
        torch.device(device)
    except RuntimeError as error:
        raise MismatchError(f"device is {device!r}, expected cpu, cuda or cuda:N") from error
    return load_policy(name, device=device, seed=parameters.seed, robot=parameters.value("robot") or None)


def check_statistics(setup: Any, wanted: str) -> None:
    """Raise MismatchError when the checkpoint's statistics are not the wanted ones; "" wants none in particular."""
    statistics = getattr(setup, "statistics", None)
    found = "" if statistics is None else statistics.sha256()
    if wanted and wanted != found:
        raise MismatchError(
            f"the checkpoint's statistics have SHA-256 {found or 'none'}, parameter statistics_hash wants {wanted}"
        )


def model_size(policy: Policy) -> tuple[int, int] | None:
    """Return (height, width) [pixels] of the images that the model sees, None when the policy does not say."""
    checkpoint = getattr(policy, "checkpoint", None)
    if checkpoint is None:
        return None
    images = checkpoint.model.config.images
    return images.height, images.width


def settle_memory() -> None:
    """Leave what exists now out of garbage collection: looking through all of torch would stop the node for 50 ms."""
    gc.collect()
    gc.freeze()


def release_memory() -> None:
    """Give freed memory back to the device and the system."""
    gc.unfreeze()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except OSError:
        return  # Another C library: it decides by itself.
