# SPDX-License-Identifier: Apache-2.0
"""Spoil a checkpoint folder in every way that an accident or an attacker may, most of them signed anew."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from chatvla_policy.checkpoint.files import MANIFEST, write_manifest

__all__ = ["HOSTILE", "TRIPWIRE"]

TRIPWIRE = "exploded"
"""A file of this name beside the folder shows that code was run."""
Spoil = Callable[[Path, np.random.Generator], None]
_WEIGHTS = "model.safetensors"
_FILES = (
    _WEIGHTS,
    "config.json",
    "statistics.json",
    "robot_spec.json",
    "processor/tokenizer.json",
    "golden.safetensors",
)


class _Bomb:
    """Touches the tripwire when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def _sign(folder: Path) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)
    write_manifest(folder)


def _document(name: str, change: Callable[[Any, np.random.Generator], Any]) -> Spoil:
    """Return a maker that changes a JSON document and signs the folder anew."""

    def spoil(folder: Path, random: np.random.Generator) -> None:
        data = json.loads((folder / name).read_text())
        changed = change(data, random)
        (folder / name).write_text(json.dumps(data if changed is None else changed))
        _sign(folder)

    return spoil


def _text(name: str, text: str | bytes) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        data = text.encode() if isinstance(text, str) else text
        (folder / name).write_bytes(data)
        _sign(folder)

    return spoil


def _weights(change: Callable[[dict[str, torch.Tensor], np.random.Generator], None]) -> Spoil:
    """Return a maker that changes the weights and signs the folder anew."""

    def spoil(folder: Path, random: np.random.Generator) -> None:
        weights = load_file(folder / _WEIGHTS)
        change(weights, random)
        save_file(weights, folder / _WEIGHTS)
        _sign(folder)

    return spoil


def _header(change: Callable[[dict[str, Any]], None]) -> Spoil:
    """Return a maker that changes the weights' own header, its length kept right."""

    def spoil(folder: Path, random: np.random.Generator) -> None:
        data = (folder / _WEIGHTS).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        (folder / _WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        _sign(folder)

    return spoil


def _entry(name: str, **fields: Any) -> Spoil:
    """Return a maker whose manifest lists one more file."""

    def spoil(folder: Path, random: np.random.Generator) -> None:
        data = json.loads((folder / MANIFEST).read_text())
        data["files"].append({"name": name, "size": 1, "sha256": "0" * 64, **fields})
        (folder / MANIFEST).write_text(json.dumps(data))

    return spoil


def _flip(sign: bool) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        # Signed anew, a flipped weight is just another weight: documents only.
        path = folder / str(random.choice(_FILES[1:4] if sign else _FILES))
        data = bytearray(path.read_bytes())
        data[int(random.integers(len(data)))] ^= 0x80 if sign else 1 << int(random.integers(8))
        path.write_bytes(data)
        if sign:
            _sign(folder)

    return spoil


def _truncate(sign: bool) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        path = folder / str(random.choice(_FILES))
        data = path.read_bytes()
        path.write_bytes(data[: int(random.integers(0, len(data) - 2))])
        if sign:
            _sign(folder)

    return spoil


def _remove(folder: Path, random: np.random.Generator) -> None:
    (folder / str(random.choice(_FILES[:5]))).unlink()


def _link(folder: Path, random: np.random.Generator) -> None:
    path = folder / str(random.choice(_FILES))
    outside = folder.parent / "outside"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)


def _link_folder(folder: Path, random: np.random.Generator) -> None:
    shutil.copytree(folder / "processor", folder.parent / "elsewhere")
    shutil.rmtree(folder / "processor")
    (folder / "processor").symlink_to(folder.parent / "elsewhere", target_is_directory=True)


def _link_manifest(folder: Path, random: np.random.Generator) -> None:
    (folder / MANIFEST).rename(folder.parent / "manifest")
    (folder / MANIFEST).symlink_to(folder.parent / "manifest")


def _fifo(folder: Path, random: np.random.Generator) -> None:
    """A pipe in place of a file: whoever opens it waits for ever."""
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def _pickle(name: str) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        data = pickle.dumps(_Bomb(str(folder.parent / TRIPWIRE)))
        (folder / name).write_bytes(data)
        if name != _WEIGHTS:
            (folder / _WEIGHTS).unlink()
        _sign(folder)

    return spoil


def _code(folder: Path, random: np.random.Generator) -> None:
    for name in ("modeling.py", "__init__.py", "configuration.py"):
        (folder / name).write_text(f"open({str(folder.parent / TRIPWIRE)!r}, 'w')\n")
    data = json.loads((folder / "config.json").read_text())
    data["auto_map"] = {"AutoModel": "modeling.Model"}
    (folder / "config.json").write_text(json.dumps(data))
    _sign(folder)


def _system(name: str) -> Spoil:
    return _document("config.json", lambda data, random: data.update(system=name))


def _config(change: Callable[[Any], Any]) -> Spoil:
    return _document("config.json", lambda data, random: change(data))


def _statistics(change: Callable[[Any], Any]) -> Spoil:
    return _document("statistics.json", lambda data, random: change(data["arx_r5"]))


def _spec(change: Callable[[Any], Any]) -> Spoil:
    return _document("robot_spec.json", lambda data, random: change(data["arx_r5"]))


def _one(weights: dict[str, torch.Tensor], random: np.random.Generator) -> torch.Tensor:
    """Return a random weight, flattened."""
    return weights[str(random.choice(sorted(weights)))].view(-1)


def _spoil_one(value: float) -> Callable[[dict[str, torch.Tensor], np.random.Generator], None]:
    def change(weights: dict[str, torch.Tensor], random: np.random.Generator) -> None:
        flat = _one(weights, random)
        flat[int(random.integers(len(flat)))] = value

    return change


def _swap_robot(data: Any, random: np.random.Generator) -> Any:
    return {"franka": data["arx_r5"]}


HOSTILE: dict[str, Spoil] = {
    "bit flipped": _flip(sign=False),
    "bit flipped again": _flip(sign=False),
    "document with a broken byte, signed": _flip(sign=True),
    "cut off": _truncate(sign=False),
    "cut off, signed": _truncate(sign=True),
    "cut off again, signed": _truncate(sign=True),
    "file missing": _remove,
    "file is a link": _link,
    "folder is a link": _link_folder,
    "manifest is a link": _link_manifest,
    "file is a pipe": _fifo,
    "manifest empty": lambda folder, random: (folder / MANIFEST).write_text("") and None,
    "manifest deep": lambda folder, random: (folder / MANIFEST).write_text("[" * 200_000) and None,
    "manifest of a later format": lambda folder, random: (
        (folder / MANIFEST).write_text('{"format": 99, "files": []}') and None
    ),
    "manifest lists nothing": lambda folder, random: (
        (folder / MANIFEST).write_text('{"format": 1, "files": []}') and None
    ),
    "manifest holds NaN": lambda folder, random: (folder / MANIFEST).write_text('{"format": NaN}') and None,
    "path up": _entry("../outside"),
    "path absolute": _entry("/etc/passwd"),
    "path up within": _entry("processor/../../outside"),
    "path hidden": _entry(".hidden"),
    "path with a line break": _entry("model\n.json"),
    "path with a zero": _entry("model\x00.json"),
    "path of another script": _entry("mоdel.json"),
    "size negative": _entry("more.json", size=-1),
    "size no number": _entry("more.json", size="1"),
    "header longer than the file": _text(_WEIGHTS, struct.pack("<Q", 2**62) + b"{}"),
    "header of 2 GB": _text(_WEIGHTS, struct.pack("<Q", 2**31) + b"{}"),
    "header empty": _text(_WEIGHTS, struct.pack("<Q", 0)),
    "header no JSON": _text(_WEIGHTS, struct.pack("<Q", 8) + b"\xff" * 8),
    "header deep": _text(_WEIGHTS, struct.pack("<Q", 200_000) + b"[" * 200_000),
    "offsets past the end": _header(lambda header: header["queries_QV"].update(data_offsets=[0, 2**50])),
    "offsets backwards": _header(lambda header: header["queries_QV"].update(data_offsets=[1024, 0])),
    "offsets negative": _header(lambda header: header["queries_QV"].update(data_offsets=[-8, 1016])),
    "shape of an exabyte": _header(lambda header: header["queries_QV"].update(shape=[2**30, 2**30])),
    "shape negative": _header(lambda header: header["queries_QV"].update(shape=[-4, -64])),
    "type unknown": _header(lambda header: header["queries_QV"].update(dtype="PICKLE")),
    "tensor without a place": _header(lambda header: header["queries_QV"].pop("data_offsets")),
    "weight missing": _weights(lambda weights, random: weights.__delitem__("queries_QV")),
    "weight too many": _weights(lambda weights, random: weights.update(extra=torch.zeros(2))),
    "weight of another shape": _weights(lambda weights, random: weights.update(queries_QV=torch.zeros(3, 3))),
    "weight of another type": _weights(
        lambda weights, random: weights.update(queries_QV=torch.zeros(4, 64, dtype=torch.int64))
    ),
    "weight NaN": _weights(_spoil_one(float("nan"))),
    "weight infinite": _weights(_spoil_one(float("inf"))),
    "pickle beside": _pickle("pytorch_model.bin"),
    "pickle in place of weights": _pickle(_WEIGHTS),
    "pickle as .pt": _pickle("model.pt"),
    "code beside": _code,
    "system is a path": _system("os:system"),
    "system unknown": _system("../evil"),
    "config with a field too many": _config(lambda data: data.update(surprise=1)),
    "config with a field too few": _config(lambda data: data.pop("images")),
    "config of a type too wide": _config(lambda data: data["action"].update(width="64")),
    "config a billion layers deep": _config(lambda data: data["backbone"]["text"].update(depth=10**9)),
    "config a vocabulary of 10^12": _config(lambda data: data["backbone"]["text"].update(vocabulary=10**12)),
    "config images of 10^9 pixels": _config(lambda data: data["images"].update(width=28 * 10**6)),
    "config horizon of 10^9": _config(lambda data: data["action"]["embodiments"][0].update(horizon=10**9)),
    "config negative heads": _config(lambda data: data["action"].update(heads=-4)),
    "config zero patch": _config(lambda data: data["images"].update(patch_size=0)),
    "config more experts chosen than there are": _config(lambda data: data["moe"].update(top_k=9)),
    "config a list": _config(lambda data: []),
    "tokenizer empty": _text("processor/tokenizer.json", "{}"),
    "tokenizer no text": _text("processor/tokenizer.json", b"\xff\xfe\x00"),
    "statistics of another robot": _document("statistics.json", _swap_robot),
    "statistics short": _statistics(lambda data: data["state"]["mean"].pop() and None),
    "statistics in another order": _statistics(lambda data: data["action"]["names"].reverse()),
    "statistics shifted": _statistics(
        lambda data: data["action"].update(minimum=[value + 0.5 for value in data["action"]["minimum"]])
    ),
    "statistics reversed": _statistics(
        lambda data: data["action"].update(minimum=data["action"]["maximum"], maximum=data["action"]["minimum"])
    ),
    "statistics of 10^300": _statistics(lambda data: data["action"].update(maximum=[1e300] * 14)),
    "statistics no numbers": _statistics(lambda data: data["state"].update(mean=[None] * 14)),
    "statistics unknown method": _statistics(lambda data: data["state"].update(method="eval")),
    "spec of another robot": _document("robot_spec.json", _swap_robot),
    "spec without home": _spec(lambda data: data["spec"].pop("home") and None),
    "spec with wider limits": _spec(lambda data: data["spec"]["joints"][0].update(upper=31.4)),
    "spec with faster joints": _spec(lambda data: data["spec"]["joints"][2].update(velocity=500.0)),
    "spec with a NaN limit": _text(
        "robot_spec.json", '{"arx_r5": {"spec": {"name": "arx_r5", "joints": [{"lower": NaN}]}, "chunks": {}}}'
    ),
    "spec with limits reversed": _spec(lambda data: data["spec"]["joints"][0].update(upper=-9.0)),
    "chunks of another mode": _spec(lambda data: data["chunks"].update(mode="TELEPORT")),
    "chunks without a camera": _spec(lambda data: data["chunks"].update(cameras=[])),
    "chunks of a hostile camera": _spec(lambda data: data["chunks"].update(cameras=["../../dev/video0\n"])),
    "chunks of a tiny period": _spec(lambda data: data["chunks"].update(step_period_s=-1.0)),
}
"""Makers by name: each changes the folder in place. All must be refused before the policy acts."""
