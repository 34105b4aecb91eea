# SPDX-License-Identifier: Apache-2.0
"""Save and load a VLM2VLA checkpoint: the shared parts, the adapter as an adapter, the base by name or in the folder.

adapter/  peft's own layout: adapter_config.json, adapter_model.safetensors
base/     only for a base small enough to travel along: transformers' own layout
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.checkpoint.parts import Parts, open_parts, save_parts
from chatvla_policy.checkpoint.setup import RobotSetup
from chatvla_policy.model.backbone import BackboneError
from chatvla_policy.strict_json import StrictJsonError
from chatvla_policy.vlm2vla.config import Vlm2VlaConfig
from chatvla_policy.vlm2vla.image_text_model import ImageTextModel
from chatvla_policy.vlm2vla.processors import ProcessorError

__all__ = ["ADAPTER", "BASE", "Vlm2VlaParts", "load_vlm2vla", "open_vlm2vla", "save_vlm2vla"]

ADAPTER, BASE = "adapter", "base"


def save_vlm2vla(
    folder: Path | str,
    config: Vlm2VlaConfig,
    robots: tuple[RobotSetup, ...],
    provenance: Mapping[str, Any],
    *,
    write_adapter: Callable[[Path], None] | None,
    base: Path | None = None,
) -> str:
    """Write the checkpoint and return its hash.

    `write_adapter(folder)` writes the adapter there; `base` is a folder to take along, in place of `config.base`.
    """

    def write(aside: Path) -> None:
        if write_adapter is not None:
            (aside / ADAPTER).mkdir()
            write_adapter(aside / ADAPTER)
        if base is not None:
            (aside / BASE).mkdir()
            for file in sorted(base.iterdir()):
                if file.is_file() and not file.name.startswith("."):
                    shutil.copyfile(file, aside / BASE / file.name)

    stored = replace(config, base="") if base is not None else config
    return save_parts(folder, config=stored, robots=robots, provenance=provenance, write=write)


@dataclass(frozen=True, kw_only=True)
class Vlm2VlaParts:
    """An opened checkpoint before any weight is read."""

    parts: Parts
    config: Vlm2VlaConfig
    base: Path | str
    """The base model's folder, in the checkpoint, or its name."""
    adapter: Path | None
    """The adapter's folder, if there is one."""


def open_vlm2vla(folder: Path | str) -> Vlm2VlaParts:
    """Return what a checkpoint holds, each file checked against its hash. Raises CheckpointError for what is wrong."""
    parts = open_parts(folder)
    try:
        config = Vlm2VlaConfig.from_plain(parts.config)
    except StrictJsonError as error:
        raise CheckpointError(f"{parts.folder}: {error}") from error
    names = [entry.name for entry in parts.manifest.files]
    for name in names:
        parts.file(name)
    own = any(name.startswith(f"{BASE}/") for name in names)
    if own == bool(config.base):
        raise CheckpointError(f"{parts.folder} must have either a base model of its own or the name of one, not both")
    return Vlm2VlaParts(
        parts=parts,
        config=config,
        base=parts.folder / BASE if own else config.base,
        adapter=parts.folder / ADAPTER if any(name.startswith(f"{ADAPTER}/") for name in names) else None,
    )


def load_vlm2vla(
    folder: Path | str, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> tuple[Parts, Vlm2VlaConfig, ImageTextModel]:
    """Return the parts, the config and the model, adapter folded in. Raises CheckpointError naming what is wrong."""
    opened = open_vlm2vla(folder)
    parts, config = opened.parts, opened.config
    try:
        model = ImageTextModel.load(
            opened.base,
            adapter=opened.adapter,
            size=(config.image_width, config.image_height),
            digit_tokens=config.digit_tokens,
            device=device,
            dtype=dtype,
        )
    except (BackboneError, ProcessorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{parts.folder}: the base model cannot be loaded: {error}") from error
    return parts, config, model
