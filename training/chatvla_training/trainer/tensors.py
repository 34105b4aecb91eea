# SPDX-License-Identifier: Apache-2.0
"""See a parameter's own part on this device, whether it is sharded over devices or whole."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = ["full", "local", "trained_parameters"]


def local(tensor: Tensor) -> Tensor:
    """Return the part of `tensor` that lies on this device; the tensor itself when it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensor: Tensor) -> Tensor:
    """Return the whole of `tensor`; every device must call it when it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def trained_parameters(module: nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that take gradients, by the name they have without any wrapper."""
    return {
        name.removeprefix("module."): parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
