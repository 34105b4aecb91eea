# SPDX-License-Identifier: Apache-2.0
"""Store a module's weights as safetensors, in shards, and read them back only where everything fits.

Tied weights are stored once, under the first of their names. Names, shapes and types are compared with the module
before a byte of weights is read. Never a pickle.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.checkpoint.files import Manifest, TensorEntry, verified_file

__all__ = ["SHARD_BYTES", "Storage", "read_weights", "unique_tensors", "write_weights"]

SHARD_BYTES = 4 * 1024**3
LARGEST_HEADER = 32 * 1024**2
Storage = Literal["as_is", "bfloat16", "float32"]
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HEADER_TYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each storage once."""
    seen: set[int] = set()
    unique: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique[name] = tensor
    return unique


def write_weights(
    folder: Path, module: nn.Module, *, storage: Storage, shard_bytes: int = SHARD_BYTES
) -> tuple[TensorEntry, ...]:
    """Write shards of at most `shard_bytes`; return what was stored. Raises CheckpointError for NaN and infinities."""
    shards: list[list[str]] = [[]]
    filled = 0
    tensors = unique_tensors(module)
    for name, tensor in tensors.items():
        size = tensor.numel() * (tensor.element_size() if storage == "as_is" else _TYPES[storage].itemsize)
        if filled and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    entries: list[TensorEntry] = []
    for number, names in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        stored = {name: _stored(name, tensors[name], storage) for name in names}
        save_file(stored, folder / file)
        entries += [
            TensorEntry(name=name, file=file, shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))
            for name, tensor in stored.items()
        ]
    return tuple(entries)


def _stored(name: str, tensor: Tensor, storage: Storage) -> Tensor:
    """Return the tensor as it is written. Raises CheckpointError for what must not be stored."""
    kept = tensor.detach()
    if not torch.isfinite(kept).all():
        raise CheckpointError(f"weight {name} holds NaN or infinity; the training diverged, nothing was saved")
    if storage != "as_is":
        kept = kept.to(_TYPES[storage])
    return kept.cpu().contiguous()


def read_weights(folder: Path, manifest: Manifest, module: nn.Module, *, device: torch.device) -> None:
    """Fill the module, which may lie on the meta device, from the folder.

    Weights take the stored type. Raises CheckpointError naming the first name, shape or type that does not fit.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in unique_tensors(module).items()}
    listed = {entry.name: entry for entry in manifest.tensors}
    for name, shape in expected.items():
        if name not in listed:
            raise CheckpointError(f"the checkpoint lacks weight {name}; it was saved by another model")
        if listed[name].shape != shape:
            raise CheckpointError(f"weight {name} has shape {listed[name].shape}, the config needs {shape}")
    for entry in manifest.tensors:
        if entry.name not in expected:
            raise CheckpointError(f"the checkpoint has weight {entry.name}, which this model does not")
        if entry.dtype not in _TYPES:
            raise CheckpointError(f"weight {entry.name} has type {entry.dtype}; there are: {', '.join(_TYPES)}")
    aliases = _aliases(module)
    for file in dict.fromkeys(entry.file for entry in manifest.tensors):
        path = verified_file(folder, manifest, file)
        entries = [entry for entry in manifest.tensors if entry.file == file]
        _check_header(path, entries)
        _fill(path, entries, module, aliases, device)


def _check_header(path: Path, entries: Iterable[TensorEntry]) -> None:
    """Raise CheckpointError when the file's own header does not say the same as the manifest."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if length > min(LARGEST_HEADER, path.stat().st_size):
            raise CheckpointError(f"{path.name} has a header of {length} bytes, at most {LARGEST_HEADER} are read")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise CheckpointError(f"{path.name} is no safetensors file: {error}") from error
    header.pop("__metadata__", None)
    wanted = {entry.name: entry for entry in entries}
    if set(header) != set(wanted):
        name = sorted(set(header) ^ set(wanted))[0]
        raise CheckpointError(f"{path.name} and the manifest differ on weight {name}")
    for name, entry in wanted.items():
        dtype, shape = _HEADER_TYPES.get(header[name]["dtype"], header[name]["dtype"]), tuple(header[name]["shape"])
        if (dtype, shape) != (entry.dtype, entry.shape):
            raise CheckpointError(
                f"weight {name} is {dtype} {shape} in {path.name}, the manifest says {entry.dtype} {entry.shape}"
            )


def _aliases(module: nn.Module) -> dict[str, list[str]]:
    """Return all names of each stored tensor, by the name it is stored under."""
    first: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(first.setdefault(id(tensor), name), []).append(name)
    return names


def _fill(
    path: Path, entries: Iterable[TensorEntry], module: nn.Module, aliases: dict[str, list[str]], device: torch.device
) -> None:
    """Put the file's tensors in the module, tied weights at all of their places."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            for entry in entries:
                tensor = file.get_tensor(entry.name)
                if not torch.isfinite(tensor).all():
                    raise CheckpointError(f"weight {entry.name} holds NaN or infinity; the checkpoint is unusable")
                _place(module, aliases[entry.name], tensor)
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error


def _place(module: nn.Module, names: Iterable[str], tensor: Tensor) -> None:
    """Set one parameter or buffer under all of its names."""
    parameter: nn.Parameter | None = None
    for name in names:
        owner_name, _, leaf = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        if leaf in owner._parameters:
            parameter = parameter if parameter is not None else nn.Parameter(tensor)
            owner._parameters[leaf] = parameter
        else:
            owner._buffers[leaf] = tensor
