# SPDX-License-Identifier: Apache-2.0
"""Store a module's weights as safetensors, in shards, and read them back only where everything fits.

Tied weights are stored once, under the first of their names. Names, shapes and types are compared with the module
before a byte of weights is read. Never a pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.checkpoint.files import Manifest, verified_file
from chatvla_policy.model.tensor_files import (
    PlannedTensor,
    TensorEntry,
    TensorFileError,
    chunks_of,
    read_entries,
    read_tensor,
    write_shards,
)

__all__ = ["SHARD_BYTES", "Storage", "read_weights", "tensor_names", "write_weights"]

SHARD_BYTES = 4 * 1024**3
Storage = Literal["as_is", "bfloat16", "float32", "mixed"]
EXACT = "expert.robots."
"""What `mixed` keeps in float32: the layers that read joints and write targets, few numbers of which each counts."""
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def tensor_names(module: nn.Module) -> list[tuple[Tensor, list[str]]]:
    """Return each parameter and stored buffer once, with all of its names."""
    found: dict[int, tuple[Tensor, list[str]]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (tensor, []))[1].append(name)
    return list(found.values())


def write_weights(folder: Path, module: nn.Module, *, storage: Storage, shard_bytes: int = SHARD_BYTES) -> None:
    """Write shards of about `shard_bytes`. Raises CheckpointError for NaN and infinities."""
    planned = []
    for tensor, (name, *_) in tensor_names(module):
        if not torch.isfinite(tensor.detach()).all():
            raise CheckpointError(f"weight {name} holds NaN or infinity; the training diverged, nothing was saved")
        dtype = _stored_type(name, tensor, storage)

        def chunks(kept: Tensor = tensor, dtype: torch.dtype = dtype) -> Iterator[memoryview]:
            return chunks_of(kept.detach().to(dtype))

        planned.append(PlannedTensor(name=name, dtype=dtype, shape=tuple(tensor.shape), chunks=chunks))
    write_shards(folder, planned, shard_bytes=shard_bytes)


def _stored_type(name: str, tensor: Tensor, storage: Storage) -> torch.dtype:
    if storage == "as_is":
        return tensor.dtype
    if storage == "mixed":
        return torch.float32 if name.startswith(EXACT) else torch.bfloat16
    return getattr(torch, storage)


def read_weights(
    folder: Path, manifest: Manifest, module: nn.Module, *, device: torch.device, dtype: torch.dtype | None
) -> None:
    """Fill a module that lies on the meta device. Weights take `dtype`, or the stored type where it is None.

    Raises CheckpointError naming the first file, name, shape or type that does not fit.
    """
    for entry in manifest.files:
        if entry.name.startswith("model"):
            verified_file(folder, manifest, entry.name)
    try:
        entries = read_entries(folder)
    except TensorFileError as error:
        raise CheckpointError(str(error)) from error
    names = tensor_names(module)
    _check(entries, names, {entry.name for entry in manifest.files})
    for _, places in names:
        weight = read_tensor(entries[places[0]], device=device, dtype=dtype)
        if not torch.isfinite(weight).all():
            raise CheckpointError(f"weight {places[0]} holds NaN or infinity; the checkpoint is unusable")
        _place(module, places, weight)
    _fill_buffers(module, device)


def _check(entries: dict[str, TensorEntry], names: list[tuple[Tensor, list[str]]], files: set[str]) -> None:
    """Raise CheckpointError for the first difference between what is stored and what the module needs."""
    for tensor, (name, *_) in names:
        entry = entries.get(name)
        if entry is None:
            raise CheckpointError(f"the checkpoint lacks weight {name}; it was saved by another model")
        if entry.shape != tuple(tensor.shape):
            raise CheckpointError(f"weight {name} has shape {entry.shape}, config.json needs {tuple(tensor.shape)}")
        if entry.dtype not in _TYPES:
            kinds = ", ".join(str(kind).removeprefix("torch.") for kind in _TYPES)
            raise CheckpointError(f"weight {name} has type {str(entry.dtype).removeprefix('torch.')}; known: {kinds}")
        if entry.file.name not in files:
            raise CheckpointError(f"weight {name} lies in {entry.file.name}, which the manifest does not list")
    known = {name for _, (name, *_) in names}
    for name in entries:
        if name not in known:
            raise CheckpointError(f"the checkpoint has weight {name}, which this model does not")


def _place(module: nn.Module, names: Iterable[str], weight: Tensor) -> None:
    """Set one parameter or buffer under all of its names."""
    parameter = nn.Parameter(weight)
    for name in names:
        owner_name, _, leaf = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        setattr(owner, leaf, parameter if leaf in owner._parameters else weight)


def _fill_buffers(module: nn.Module, device: torch.device) -> None:
    """Compute buffers that are not stored (rotary frequencies) anew."""
    for part in list(module.modules()):
        if any(buffer.is_meta for buffer in part.buffers(recurse=False)):
            for name, buffer in type(part)(part.config).named_buffers(recurse=False):  # type: ignore[arg-type]
                setattr(part, name, buffer.to(device))
