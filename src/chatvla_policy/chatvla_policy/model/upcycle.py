# SPDX-License-Identifier: Apache-2.0
"""Turn a dense Qwen2-VL into a mixture of experts: every expert starts as a copy of the pretrained MLP.

With gates that sum to 1 the result computes what the dense model computes, whatever the router chooses. This answers
the public question on ChatVLA-2's OpenReview page (randomly initialised experts would be noise at the start).
From folder to folder the weights are streamed: memory stays near one read buffer, whatever the model's size.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from chatvla_policy.model.backbone import (
    Backbone,
    BackboneError,
    check_entries,
    hub_name,
    meta_backbone,
    read_config,
    read_config_values,
    resolve_folder,
    write_config,
)
from chatvla_policy.model.moe.config import MoeConfig, MoeKind
from chatvla_policy.model.moe.config import Path as RoutePath
from chatvla_policy.model.tensor_files import PlannedTensor, TensorEntry, chunks_of, entry_chunks, write_shards

__all__ = ["average_experts", "upcycle", "upcycle_backbone"]

MLP_WEIGHT = re.compile(r"^(model\.language_model\.layers\.(\d+)\.mlp)\.((?:gate|up|down)_proj\.weight)$")
COMPANIONS = ("*.json", "*.txt", "*.jinja")


def upcycle(
    source: str | Path, moe: MoeConfig, out: str | Path, *, seed: int = 0, shard_bytes: int = 4 * 10**9
) -> Path:
    """Write the mixture `moe` made from the dense checkpoint `source` as the new folder `out`; return it.

    `source` is a local folder or hub name. Tensors keep their dtype. Processor and tokenizer files come along.
    Raises BackboneError or TensorFileError naming the first mismatch; `out` then does not exist.
    """
    folder, target = resolve_folder(source), Path(out)
    if target.exists():
        raise BackboneError(f"{target} exists already; give a new folder")
    config, start = read_config(folder)
    if start.kind is not MoeKind.DENSE:
        raise BackboneError(f"{folder} is a mixture of kind {start.kind} already; give a dense Qwen2-VL")
    entries = check_entries(folder, meta_backbone(config, start))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
        made = Path(work) / "made"
        made.mkdir()
        write_shards(made, list(_plan(entries, moe, seed)), shard_bytes=shard_bytes)
        for pattern in COMPANIONS:
            for file in folder.glob(pattern):
                if not file.name.endswith(".index.json"):
                    shutil.copyfile(file, made / file.name)
        write_config(made, read_config_values(folder), moe)
        made.rename(target)
    return target


def upcycle_backbone(dense: Backbone, moe: MoeConfig, *, seed: int = 0) -> Backbone:
    """Return the mixture `moe` made from `dense` in memory, equal to what `upcycle` writes; `dense` stays as it is."""
    if dense.moe_config.kind is not MoeKind.DENSE:
        raise BackboneError(f"the model is a mixture of kind {dense.moe_config.kind} already; give a dense one")
    result = Backbone(dense.config, moe).to(device=dense.device, dtype=dense.dtype)
    states: dict[str, Tensor] = {}
    for name, tensor in dense.state_dict().items():
        states.update(dict.fromkeys(_targets(name, moe), tensor))
        states.update(_router(name, tensor, moe, seed))
    result.load_state_dict(states)
    return result.train(dense.training)


def average_experts(mixture: Backbone) -> Backbone:
    """Return the dense model whose MLPs are the means of `mixture`'s experts; `mixture` stays as it is.

    Of experts that are still copies of one MLP it is the model that they were made of, up to rounding. Those that were
    trained on from one start can be averaged as fine-tuned models can (model soups, Wortsman et al. 2022).
    Raises BackboneError for a mixture that is not of routed experts alone.
    """
    moe = mixture.moe_config
    if moe.kind is not MoeKind.DYNAMIC:
        raise BackboneError(f"the model is of kind {moe.kind}; only the experts of a dynamic mixture can be averaged")
    result = Backbone(mixture.config, MoeConfig(kind=MoeKind.DENSE)).to(device=mixture.device, dtype=mixture.dtype)
    states = mixture.state_dict()
    means = {
        name: torch.stack([states[target] for target in _targets(name, moe)]).mean(dim=0)
        for name in result.state_dict()
        if name not in states
    }
    result.load_state_dict({name: means.get(name, states.get(name)) for name in result.state_dict()})
    return result.train(mixture.training)


def _plan(entries: dict[str, TensorEntry], moe: MoeConfig, seed: int) -> Iterator[PlannedTensor]:
    for name, entry in entries.items():
        for target in _targets(name, moe):
            yield PlannedTensor(
                name=hub_name(target), dtype=entry.dtype, shape=entry.shape, chunks=lambda e=entry: entry_chunks(e)
            )
        like = torch.empty(entry.shape, dtype=entry.dtype, device="meta")
        for target, tensor in _router(name, like, moe, seed).items():
            yield PlannedTensor(
                name=hub_name(target),
                dtype=tensor.dtype,
                shape=tuple(tensor.shape),
                chunks=lambda t=tensor: chunks_of(t),
            )


def _targets(name: str, moe: MoeConfig) -> list[str]:
    """Return the names in the mixture that start as copies of the dense tensor `name`."""
    match = MLP_WEIGHT.match(name)
    if match is None or moe.kind is MoeKind.DENSE:
        return [name]
    mlp, _, weight = match.groups()
    targets = [f"{mlp}.experts.{number}.{weight}" for number in range(moe.experts)] if moe.routed else []
    targets += [f"{mlp}.static_experts.{int(path)}.{weight}" for path in RoutePath] if moe.static else []
    return targets + ([f"{mlp}.shared_expert.{weight}"] if moe.kind is MoeKind.SHARED_DYNAMIC else [])


def _router(name: str, tensor: Tensor, moe: MoeConfig, seed: int) -> dict[str, Tensor]:
    """Return the new router's weights of the layer whose gate projection `name` is, else nothing."""
    match = MLP_WEIGHT.match(name)
    if match is None or not moe.routed or not name.endswith("gate_proj.weight"):
        return {}
    mlp, layer, _ = match.groups()
    generator = torch.Generator().manual_seed(seed * 1_000_003 + int(layer))
    weight = torch.randn(moe.experts, tensor.shape[1], generator=generator) * moe.router_std
    router = {f"{mlp}.router.weight": weight.to(tensor.dtype)}
    if moe.noisy:
        router[f"{mlp}.router.noise_weight"] = torch.zeros_like(router[f"{mlp}.router.weight"])
    return router
