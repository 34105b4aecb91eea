# SPDX-License-Identifier: Apache-2.0
"""Read and write safetensors folders tensor by tensor, with bounded memory and errors that name the first fault.

The format is 8 bytes of header length (little endian), a JSON header of names, dtypes, shapes and offsets, then the
tensors' bytes one after another. Nothing in a file is ever executed. Plain reads instead of a memory map: mapped pages
would count as the process's memory beside the copies made from them.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "PlannedTensor",
    "TensorEntry",
    "TensorFileError",
    "chunks_of",
    "read_entries",
    "read_tensor",
    "write_shards",
]

INDEX_NAME = "model.safetensors.index.json"
CHUNK_BYTES = 16 * 2**20
MAX_HEADER_BYTES = 100 * 2**20
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class TensorFileError(ValueError):
    """A folder of tensors that can't be read; the message names the file, the fault and the remedy."""


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """Where one tensor's bytes lie."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path
    offset: int
    """First byte in the file."""
    size: int
    """Number of bytes."""


@dataclass(frozen=True, kw_only=True)
class PlannedTensor:
    """One tensor to be written; its bytes are asked for only when its turn comes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[bytes | memoryview]]

    @property
    def size(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_entries(folder: Path) -> dict[str, TensorEntry]:
    """Return every tensor of the folder's safetensors shards by name; reads headers only.

    Raises TensorFileError for a missing, truncated or malformed shard, and for folders that hold only pickles.
    """
    entries: dict[str, TensorEntry] = {}
    for file in _shards(folder):
        for entry in _read_header(file):
            if entry.name in entries:
                raise TensorFileError(
                    f"{file.name} holds {entry.name}, which {entries[entry.name].file.name} holds too"
                )
            entries[entry.name] = entry
    return entries


def read_tensor(entry: TensorEntry, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Tensor:
    """Return the tensor of `entry`, read once into its own memory."""
    tensor = torch.empty(entry.shape, dtype=entry.dtype)
    if entry.size:
        view = memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
        with entry.file.open("rb", buffering=0) as stream:
            stream.seek(entry.offset)
            done = 0
            while done < entry.size:
                count = stream.readinto(view[done : done + CHUNK_BYTES])
                if not count:
                    raise TensorFileError(f"{entry.file.name} ended inside {entry.name}; copy the file again")
                done += count
    return tensor.to(device=device, dtype=dtype)


def entry_chunks(entry: TensorEntry) -> Iterator[bytes]:
    """Yield the bytes of `entry` in pieces of at most CHUNK_BYTES."""
    with entry.file.open("rb", buffering=0) as stream:
        stream.seek(entry.offset)
        left = entry.size
        while left:
            piece = stream.read(min(left, CHUNK_BYTES))
            if not piece:
                raise TensorFileError(f"{entry.file.name} ended inside {entry.name}; copy the file again")
            left -= len(piece)
            yield piece


def chunks_of(tensor: Tensor) -> Iterator[memoryview]:
    """Yield the bytes of `tensor`, at once."""
    host = tensor.detach().to("cpu").contiguous()
    yield memoryview(host.reshape(-1).view(torch.uint8).numpy())


def write_shards(folder: Path, tensors: Sequence[PlannedTensor], *, shard_bytes: int = 4 * 10**9) -> None:
    """Write `tensors` in order as safetensors shards of about `shard_bytes`, with an index when there are several."""
    groups: list[list[PlannedTensor]] = [[]]
    for tensor in tensors:
        if groups[-1] and sum(t.size for t in groups[-1]) + tensor.size > shard_bytes:
            groups.append([])
        groups[-1].append(tensor)
    if len(groups) == 1:
        _write_file(folder / "model.safetensors", groups[0])
        return
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        _write_file(folder / name, group)
        weight_map.update({tensor.name: name for tensor in group})
    index = {"metadata": {"total_size": sum(t.size for t in tensors)}, "weight_map": weight_map}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_file(file: Path, tensors: Sequence[PlannedTensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        span = [offset, offset + tensor.size]
        header[tensor.name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            written = sum(stream.write(piece) for piece in tensor.chunks())
            if written != tensor.size:
                raise TensorFileError(f"{tensor.name} gave {written} bytes, its shape needs {tensor.size}")
        stream.flush()
        os.fsync(stream.fileno())


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX_NAME
    if not index.is_file():
        single = folder / "model.safetensors"
        if single.is_file():
            return [single]
        pickles = sorted(p.name for p in folder.glob("*.bin")) if folder.is_dir() else []
        remedy = f"; {pickles[0]} is a pickle, which is never loaded: convert it to safetensors" if pickles else ""
        raise TensorFileError(f"{folder} holds neither model.safetensors nor {INDEX_NAME}{remedy}")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TensorFileError(f"{index} is no safetensors index: {error!r}") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise TensorFileError(f"{index.name} names the shard {name!r}, which is not a plain file name")
        if not (folder / name).is_file():
            raise TensorFileError(f"{index.name} names {name}, which is missing from {folder}; copy it again")
    return [folder / name for name in names]


def _read_header(file: Path) -> Iterator[TensorEntry]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        first = stream.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise TensorFileError(f"{file.name} has {size} bytes and no whole header: truncated or not safetensors")
        text = stream.read(length)
    try:
        header = json.loads(text)
        rows = [(n, r["dtype"], tuple(r["shape"]), r["data_offsets"]) for n, r in header.items() if n != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TensorFileError(f"{file.name} has a broken header: {error!r}; copy the file again") from None
    start = 8 + length
    for name, code, shape, (begin, end) in rows:
        if code not in DTYPES:
            raise TensorFileError(f"{file.name}: {name} has dtype {code}; known dtypes: {', '.join(DTYPES)}")
        dtype = DTYPES[code]
        if end - begin != math.prod(shape) * dtype.itemsize or begin < 0:
            raise TensorFileError(f"{file.name}: {name} spans {end - begin} bytes, shape {shape} needs another size")
        if start + end > size:
            raise TensorFileError(
                f"{file.name} has {size} bytes, {name} ends at byte {start + end}: the file is truncated, copy it again"
            )
        yield TensorEntry(name=name, dtype=dtype, shape=shape, file=file, offset=start + begin, size=end - begin)
