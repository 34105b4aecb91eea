# SPDX-License-Identifier: Apache-2.0
"""Save a ChatVLA-2 model with all that it needs as one folder, and load it again, exactly or not at all.

  manifest.json       format number; name, size, SHA-256 of every file
  config.json         the model (model/config.py); its field `system` names the policy class
  model*.safetensors  weights, in shards above 4 GB
  processor/          tokenizer.json, preprocessor_config.json (image preparation as transformers reads it)
  statistics.json     scales of states and actions per robot
  robot_spec.json     RobotSpec, camera names, chunk mode and period per robot
  provenance.json     how it was trained: free, but plain JSON
  golden.safetensors  optional: an input and the chunk it must give (checkpoint/golden.py)
Loading reads JSON and tensors; nothing in the folder is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from chatvla_policy.checkpoint.atomic import replaced_folder
from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.checkpoint.files import MANIFEST, Manifest, read_manifest, verified_file, write_manifest
from chatvla_policy.checkpoint.golden import GOLDEN_FILE, Golden, read_golden, write_golden
from chatvla_policy.checkpoint.setup import RobotSetup, check_expert, setups_from_plain, setups_to_plain
from chatvla_policy.checkpoint.weights import SHARD_BYTES, Storage, read_weights, write_weights
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_policy.model.config import ChatVLA2Config
from chatvla_policy.processing.tokens import TextCodec, TokenizerError
from chatvla_policy.strict_json import StrictJsonError, dump_json, read_json

__all__ = ["Checkpoint", "load_checkpoint", "read_config", "save_checkpoint"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model with its processing and its robots."""

    model: ChatVLA2
    codec: TextCodec
    robots: tuple[RobotSetup, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    golden: Golden | None = None
    sha256: str = ""
    """Hash of the folder it was loaded from; empty for one not saved yet."""

    def robot(self, name: str | None = None) -> RobotSetup:
        """Return the robot `name`, or the first one. Raises CheckpointError, listing those that exist."""
        for setup in self.robots:
            if name in (None, setup.spec.name):
                return setup
        known = ", ".join(setup.spec.name for setup in self.robots)
        raise CheckpointError(f"the checkpoint does not drive robot {name!r}; it drives: {known}")


def save_checkpoint(
    folder: Path | str, checkpoint: Checkpoint, *, storage: Storage = "as_is", shard_bytes: int = SHARD_BYTES
) -> str:
    """Write `folder` in one step, replacing an earlier checkpoint there; return its hash.

    Raises CheckpointError when robots and model do not belong together or a weight is not finite; nothing is
    replaced then.
    """
    _check_fit(checkpoint.model.config, checkpoint.codec, checkpoint.robots)
    specs, statistics = setups_to_plain(checkpoint.robots)
    documents = {
        "config.json": checkpoint.model.config,
        "robot_spec.json": specs,
        "statistics.json": statistics,
        "provenance.json": dict(checkpoint.provenance),
        "processor/preprocessor_config.json": _preprocessor(checkpoint.model.config),
    }
    with replaced_folder(Path(folder), marker=MANIFEST) as aside:
        (aside / "processor").mkdir()
        for name, document in documents.items():
            (aside / name).write_text(dump_json(document), encoding="utf-8")
        (aside / "processor/tokenizer.json").write_text(checkpoint.codec.to_json(), encoding="utf-8")
        write_weights(aside, checkpoint.model, storage=storage, shard_bytes=shard_bytes)
        if checkpoint.golden is not None:
            statistics_sha256 = checkpoint.robot(checkpoint.golden.robot).statistics.sha256()
            write_golden(aside, replace(checkpoint.golden, statistics_sha256=statistics_sha256))
        return write_manifest(aside)


def read_config(folder: Path | str) -> dict[str, Any]:
    """Return the folder's config.json as plain data, after checking the manifest. Raises CheckpointError."""
    folder = Path(folder)
    manifest, _ = read_manifest(folder)
    data = _read(folder, manifest, "config.json")
    if not isinstance(data, dict) or not isinstance(data.get("system"), str):
        raise CheckpointError("config.json names no system; save the checkpoint anew")
    return data


def load_checkpoint(
    folder: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Checkpoint:
    """Return the checkpoint in `folder`, in evaluation mode, weights as stored unless `dtype` is given.

    Raises CheckpointError: one sentence that names the first mismatch.
    """
    folder = Path(folder)
    manifest, sha256 = read_manifest(folder)
    try:
        config = ChatVLA2Config.from_plain(_read(folder, manifest, "config.json"))
        codec = TextCodec.from_file(verified_file(folder, manifest, "processor/tokenizer.json"))
    except (StrictJsonError, TokenizerError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    robots = setups_from_plain(_read(folder, manifest, "robot_spec.json"), _read(folder, manifest, "statistics.json"))
    _check_fit(config, codec, robots)
    provenance = _read(folder, manifest, "provenance.json")
    with torch.device("meta"):
        model = ChatVLA2(config)
    read_weights(folder, manifest, model, device=torch.device(device), dtype=dtype)
    golden = None
    if any(entry.name == GOLDEN_FILE for entry in manifest.files):
        golden = read_golden(verified_file(folder, manifest, GOLDEN_FILE))
        _check_statistics(golden, robots)
    return Checkpoint(
        model=model.eval(), codec=codec, robots=robots, provenance=provenance, golden=golden, sha256=sha256
    )


def _read(folder: Path, manifest: Manifest, name: str) -> Any:
    """Return the parsed content of a listed JSON file."""
    try:
        return read_json(verified_file(folder, manifest, name))
    except StrictJsonError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def _check_fit(config: ChatVLA2Config, codec: TextCodec, robots: tuple[RobotSetup, ...]) -> None:
    """Raise CheckpointError when model, tokenizer and robots do not belong together."""
    if codec.size() > config.backbone.text.vocabulary:
        raise CheckpointError(
            f"the tokenizer has {codec.size()} tokens, the model embeds {config.backbone.text.vocabulary}"
        )
    if codec.image_id != config.backbone.image_token:
        raise CheckpointError(
            f"the tokenizer's <|image_pad|> is {codec.image_id}, the model's image token {config.backbone.image_token}"
        )
    if not 1 <= config.max_reasoning_tokens <= config.backbone.text.max_positions:
        raise CheckpointError(
            f"max_reasoning_tokens is {config.max_reasoning_tokens}, must lie in "
            f"1..{config.backbone.text.max_positions} (max_positions)"
        )
    if not robots:
        raise CheckpointError("the checkpoint drives no robot; give at least one RobotSetup")
    check_expert(config.action, robots)


def _check_statistics(golden: Golden, robots: tuple[RobotSetup, ...]) -> None:
    """Raise CheckpointError when the statistics are not those that the golden input was saved with."""
    for setup in robots:
        if setup.spec.name == golden.robot and golden.statistics_sha256 not in ("", setup.statistics.sha256()):
            raise CheckpointError(
                f"statistics.json of {golden.robot} is not the one the checkpoint was saved with: its actions would "
                "have another scale; copy the checkpoint again"
            )


def _preprocessor(config: ChatVLA2Config) -> dict[str, Any]:
    """Return preprocessor_config.json for other tools; this package reads config.json."""
    images = config.images
    return json.loads(
        json.dumps(
            {
                "image_processor_type": "Qwen2VLImageProcessor",
                "patch_size": images.patch_size,
                "merge_size": images.merge_size,
                "temporal_patch_size": images.temporal_patch_size,
                "min_pixels": images.min_pixels,
                "max_pixels": images.max_pixels,
                "image_mean": images.mean,
                "image_std": images.std,
            }
        )
    )
