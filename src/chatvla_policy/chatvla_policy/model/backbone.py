# SPDX-License-Identifier: Apache-2.0
"""transformers' own Qwen2-VL with each language MLP replaced by a mixture of experts; load and save it.

Nothing else of Qwen2-VL is written anew, but that patches are embedded by a matrix in place of a convolution.
Folders have the hub's layout: sharded safetensors under the hub's names (`visual.*`, `model.layers.*`), config.json
with one key more, `moe`. Loading reads tensors and JSON, never code.
Source: ChatVLA-2, section 3.1; Qwen2-VL (Wang et al. 2024).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.modeling_qwen2_vl import PatchEmbed

from chatvla_policy.model.moe.config import MoeConfig, MoeKind
from chatvla_policy.model.moe.layer import MoeDecoderLayer, MoeMlp
from chatvla_policy.model.moe.router import Router
from chatvla_policy.model.tensor_files import (
    PlannedTensor,
    TensorEntry,
    chunks_of,
    read_entries,
    read_tensor,
    write_shards,
)

__all__ = [
    "Backbone",
    "BackboneError",
    "build_backbone",
    "check_entries",
    "load_backbone",
    "meta_backbone",
    "module_name",
    "read_config",
    "resolve_folder",
    "save_backbone",
]

DENSE_TYPE = "qwen2_vl"
MOE_TYPE = "chatvla_qwen2_vl"
WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HUB_FILES = ["*.safetensors", "*.json", "merges.txt", "*.jinja"]


class BackboneError(ValueError):
    """A folder that is no Qwen2-VL of ours; the message names the first mismatch."""


class MatrixPatchEmbed(nn.Module):
    """transformers' patch embedding with the same weight, `proj.weight`: patches don't overlap, a product is enough.

    On a CPU the 3D convolution takes several times as long.
    """

    def __init__(self, convolution: PatchEmbed) -> None:
        """Take over the weight of `convolution`."""
        super().__init__()
        self.proj = convolution.proj

    def forward(self, patches_PX: Tensor) -> Tensor:
        """Return the embedding of each patch, shape (P, W)."""
        weight_WX = self.proj.weight.flatten(1)
        return functional.linear(patches_PX.to(weight_WX.dtype), weight_WX)


class Backbone(Qwen2VLForConditionalGeneration):
    """Qwen2-VL whose language MLPs are mixtures of experts. `moe_config` says which."""

    _no_split_modules: ClassVar[list[str]] = ["Qwen2VLDecoderLayer", "MoeDecoderLayer", "Qwen2VLVisionBlock"]

    def __init__(self, config: Qwen2VLConfig, moe: MoeConfig) -> None:
        """Make the model with random weights."""
        super().__init__(config)
        self.model.visual.patch_embed = MatrixPatchEmbed(self.model.visual.patch_embed)
        self.moe_config = moe
        if moe.kind is MoeKind.DENSE:
            return
        language = self.model.language_model
        for index in range(len(language.layers)):
            layer = MoeDecoderLayer(language.config, moe, index)
            layer.apply(self._init_weights)
            language.layers[index] = layer

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Router):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def pack_experts(self) -> None:
        """Join experts' weights layer by layer for inference on a GPU."""
        for module in self.modules():
            if isinstance(module, MoeMlp):
                module.pack()

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:  # pyright: ignore
        """Write the folder as `save_backbone` does."""
        save_backbone(self, Path(save_directory))

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Backbone:  # pyright: ignore
        """Read the folder as `load_backbone` does."""
        return load_backbone(name, **options)


def build_backbone(config: Qwen2VLConfig, moe: MoeConfig | None = None) -> Backbone:
    """Return a backbone with random weights from torch's generator; dense when `moe` is None."""
    return Backbone(config, moe or MoeConfig(kind=MoeKind.DENSE))


def load_backbone(
    name: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Backbone:
    """Return the backbone of a local folder or hub name, in evaluation mode; memory peaks at one copy of the weights.

    `dtype` None keeps the folder's own. Raises BackboneError or TensorFileError naming the first mismatch.
    """
    folder = resolve_folder(name)
    config, moe = read_config(folder)
    backbone = meta_backbone(config, moe)
    entries = check_entries(folder, backbone)
    for target, entry in entries.items():
        parent, _, leaf = target.rpartition(".")
        weight = read_tensor(entry, device=device, dtype=dtype)
        setattr(backbone.get_submodule(parent), leaf, nn.Parameter(weight))
    backbone.tie_weights()
    for module in list(backbone.modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            for key, buffer in type(module)(module.config).named_buffers(recurse=False):  # pyright: ignore
                setattr(module, key, buffer.to(device))
    return backbone.eval()


def save_backbone(backbone: Backbone, folder: Path, *, shard_bytes: int = 4 * 10**9) -> None:
    """Write the backbone in the hub's layout into `folder`, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = [
        PlannedTensor(
            name=hub_name(name), dtype=tensor.dtype, shape=tuple(tensor.shape), chunks=lambda t=tensor: chunks_of(t)
        )
        for name, tensor in backbone.state_dict().items()
        if not (name == "lm_head.weight" and backbone.config.tie_word_embeddings)
    ]
    write_shards(folder, tensors, shard_bytes=shard_bytes)
    write_config(folder, backbone.config.to_dict(), backbone.moe_config)


def write_config(folder: Path, values: Mapping[str, Any], moe: MoeConfig) -> None:
    """Write config.json: Qwen2-VL's own values, and `moe` under a model type of its own unless the model is dense."""
    dense = moe.kind is MoeKind.DENSE
    kept = {key: value for key, value in values.items() if key not in ("moe", "auto_map")}
    kept["architectures"] = ["Qwen2VLForConditionalGeneration" if dense else "ChatVLABackbone"]
    # Another model type: plain transformers would otherwise load it and draw the missing MLPs at random.
    kept["model_type"] = DENSE_TYPE if dense else MOE_TYPE
    if not dense:
        kept["moe"] = moe.to_dict()
    (folder / "config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def read_config(folder: Path) -> tuple[Qwen2VLConfig, MoeConfig]:
    """Return the model's and the mixture's config; raises BackboneError for anything that is not Qwen2-VL."""
    values = read_config_values(folder)
    moe = MoeConfig.from_dict(values.pop("moe")) if "moe" in values else MoeConfig(kind=MoeKind.DENSE)
    for key in ("architectures", "auto_map", "model_type"):
        values.pop(key, None)
    return Qwen2VLConfig.from_dict(values), moe


def read_config_values(folder: Path) -> dict[str, Any]:
    """Return config.json as it is; raises BackboneError for anything that is not Qwen2-VL."""
    file = folder / "config.json"
    if not file.is_file():
        raise BackboneError(f"{folder} has no config.json: give a Qwen2-VL folder in the hub's layout")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        found = values.get("model_type")
    except (ValueError, AttributeError) as error:
        raise BackboneError(f"{file} is not a JSON object: {error}") from None
    if found not in (DENSE_TYPE, MOE_TYPE):
        raise BackboneError(f"{file} has model_type {found!r}; this model reads {DENSE_TYPE!r} and {MOE_TYPE!r} only")
    if found == MOE_TYPE and "moe" not in values:
        raise BackboneError(f"{file} has model_type {MOE_TYPE!r} and no key 'moe'")
    return values


def meta_backbone(config: Qwen2VLConfig, moe: MoeConfig) -> Backbone:
    """Return the backbone without storage: its names and shapes, for checks and for loading into."""
    with torch.device("meta"):
        return Backbone(config, moe)


def check_entries(folder: Path, backbone: Backbone) -> dict[str, TensorEntry]:
    """Return the folder's tensors by module name; raises BackboneError naming the first that does not fit."""
    found = {module_name(name): entry for name, entry in read_entries(folder).items()}
    wanted = dict(backbone.state_dict())
    if backbone.config.tie_word_embeddings:
        wanted.pop("lm_head.weight")
        found.pop("lm_head.weight", None)
    for name, tensor in wanted.items():
        entry = found.get(name)
        if entry is None:
            raise BackboneError(f"{folder} lacks {hub_name(name)}, shape {tuple(tensor.shape)}")
        if entry.shape != tuple(tensor.shape):
            raise BackboneError(f"{entry.name} has shape {entry.shape}; config.json asks for {tuple(tensor.shape)}")
        if entry.dtype not in WEIGHT_DTYPES:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in WEIGHT_DTYPES)
            raise BackboneError(f"{entry.name} has dtype {str(entry.dtype).removeprefix('torch.')}; known: {names}")
    for name, entry in found.items():
        if name not in wanted:
            raise BackboneError(f"{entry.file.name} holds {entry.name}, which this model has no place for")
    return {name: found[name] for name in wanted}


def resolve_folder(name: str | Path) -> Path:
    """Return the local folder `name`, or the downloaded snapshot of the hub name: JSON and safetensors only."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(name, Path) or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise BackboneError(f"{name} is neither a folder nor a hub name like 'Qwen/Qwen2-VL-2B-Instruct'")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=HUB_FILES))
    except Exception as error:
        raise BackboneError(f"{name} is no local folder and could not be downloaded: {error}") from error


def hub_name(name: str) -> str:
    """Return the hub's name of the tensor that the module calls `name`."""
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    return name.replace("model.language_model.", "model.", 1)


def module_name(name: str) -> str:
    """Return the module's name of the tensor that a folder calls `name`, in the hub's or in the module's own layout."""
    if name.startswith("visual."):
        return f"model.{name}"
    if name.startswith("model.") and not name.startswith(("model.visual.", "model.language_model.")):
        return "model.language_model." + name.removeprefix("model.")
    return name
