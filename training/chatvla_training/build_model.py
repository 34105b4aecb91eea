# SPDX-License-Identifier: Apache-2.0
"""Make the model that a recipe starts from: a checkpoint of ours, a Qwen2-VL, or random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from chatvla_control.robot_spec import RobotSpec
from chatvla_policy.checkpoint import RobotSetup, load_checkpoint
from chatvla_policy.model.action.config import Embodiment, action_size
from chatvla_policy.model.backbone import load_backbone, resolve_folder
from chatvla_policy.model.chatvla2 import ChatVLA2, Stage
from chatvla_policy.model.config import BackboneConfig, ChatVLA2Config, chatvla2_config
from chatvla_policy.model.moe import MoeConfig, MoeKind
from chatvla_policy.model.upcycle import average_experts, upcycle_backbone
from chatvla_policy.processing.images import ImageConfig
from chatvla_policy.processing.tokens import TextCodec
from chatvla_policy.systems import SHIPPED, shipped_names
from chatvla_training.first_weights import compose_numbers, scale_inputs, wire_heads
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.toy_words import set_toy_weights
from chatvla_training.vocabulary import tasks_of, tiny_tokenizer

__all__ = ["StartModel", "init_folder", "start_model"]


@dataclass(frozen=True, kw_only=True)
class StartModel:
    """A model before training, with its tokenizer and where it came from."""

    model: ChatVLA2
    codec: TextCodec
    robots: tuple[RobotSetup, ...]
    """Robots of the checkpoint it comes from; empty for a new model."""
    origin: dict[str, str]
    """Init and its hash, for the provenance."""


def start_model(recipe: Recipe, specs: Sequence[RobotSpec]) -> StartModel:
    """Return the model of `recipe` for robots `specs`, in the recipe's stage.

    Raises RecipeError when init and recipe do not go together, and what the loaders raise.
    """
    torch.manual_seed(recipe.seed)
    if not recipe.init:
        start = _new(recipe, specs)
    elif (init_folder(recipe.init) / "manifest.json").is_file():
        start = _from_checkpoint(recipe, specs)
    else:
        start = _from_qwen(recipe, specs)
    if recipe.init_vision:
        start = _with_tower(start, recipe.init_vision)
    try:
        start.model.set_stage(Stage(recipe.stage))
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name}: {error}; give --moe static") from error
    _freeze(start.model, recipe.freeze)
    if recipe.checkpointing:
        start.model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    return start


def init_folder(init: str) -> Path:
    """Return the folder of a checkpoint that comes with the policy package, or `init` itself."""
    return SHIPPED / init if init in shipped_names() else Path(init)


def _with_tower(start: StartModel, folder: str) -> StartModel:
    """Return `start` with the vision tower of another checkpoint. Raises RecipeError when its shape is another."""
    other = load_checkpoint(init_folder(folder), dtype=torch.float32)
    if other.model.config.backbone.vision != start.model.config.backbone.vision:
        raise RecipeError(f"init_vision: the tower of {folder} has another shape than that of init")
    start.model.backbone.model.visual.load_state_dict(other.model.backbone.model.visual.state_dict())
    return replace(start, origin={**start.origin, "init_vision": folder, "init_vision_sha256": other.sha256})


def _embodiments(recipe: Recipe, specs: Sequence[RobotSpec]) -> tuple[Embodiment, ...]:
    return tuple(
        Embodiment(name=spec.name, state_width=spec.width, action_width=spec.width, horizon=recipe.horizon)
        for spec in specs
    )


def _moe(recipe: Recipe) -> MoeConfig:
    kind = MoeKind.DENSE if recipe.moe in ("keep", "dense") else MoeKind(recipe.moe)
    return MoeConfig(
        kind=kind,
        experts=recipe.experts,
        top_k=recipe.top_k,
        balance_weight=recipe.balance_weight,
        z_weight=recipe.z_weight,
    )


def _new(recipe: Recipe, specs: Sequence[RobotSpec]) -> StartModel:
    """Return a model of random weights, with the vocabulary of the tasks that its image-text data is about."""
    if recipe.size not in ("micro", "tiny"):
        raise RecipeError(
            f"a new model of size {recipe.size!r} has no vocabulary; give --init a Qwen2-VL folder or name"
        )
    tasks = tasks_of(recipe.image_text)
    codec = TextCodec(tiny_tokenizer(tasks))
    config = _config(recipe, specs, codec)
    config = replace(config, images=_images(recipe, config.images))
    # The first weights are set before experts are made of them.
    model = ChatVLA2(replace(config, moe=MoeConfig(kind=MoeKind.DENSE)))
    scale_inputs(model.backbone, recipe.init_gain)
    if tasks == ("toy_placement",):
        set_toy_weights(model.backbone, codec)
    else:
        wire_heads(model.backbone, codec.image_id)
        compose_numbers(model.backbone, codec)
    return StartModel(model=_rebuilt(model, config, recipe), codec=codec, robots=(), origin={"init": "random weights"})


def _config(recipe: Recipe, specs: Sequence[RobotSpec], codec: TextCodec | None) -> ChatVLA2Config:
    config = chatvla2_config(
        recipe.size,
        embodiments=_embodiments(recipe, specs),
        codec=codec,
        moe=_moe(recipe),
        action=recipe.action_size or None,
        conditioning=recipe.conditioning,
        **_denoising(recipe),
    )
    readings = recipe.readings or config.readings
    return replace(config, readings=readings, action_loss_weight=recipe.action_loss_weight, system=recipe.system)


def _denoising(recipe: Recipe) -> dict[str, Any]:
    return {"objective": recipe.denoising} if recipe.denoising else {}


def _images(recipe: Recipe, images: ImageConfig) -> ImageConfig:
    """Return `images` at the recipe's width and 4:3, in whole image tokens."""
    if not recipe.image_width:
        return images
    token = images.patch_size * images.merge_size
    return replace(images, width=recipe.image_width, height=round(recipe.image_width * 3 / 4 / token) * token)


def _from_checkpoint(recipe: Recipe, specs: Sequence[RobotSpec]) -> StartModel:
    checkpoint = load_checkpoint(init_folder(recipe.init), dtype=torch.float32)
    model, config = checkpoint.model, checkpoint.model.config
    wanted = _embodiments(recipe, specs)
    if recipe.keeps_expert and any(item not in config.action.embodiments for item in wanted):
        have = ", ".join(f"{item.name} ({item.horizon} steps)" for item in config.action.embodiments)
        raise RecipeError(
            f"{recipe.init} drives {have}; the data needs {[item.name for item in wanted]}: train stage1 first"
        )
    moe = config.moe if recipe.moe == "keep" else _moe(recipe)
    action = config.action
    if not recipe.keeps_expert:
        size = recipe.action_size
        action = action_size(size, queries=action.queries) if size else action
        action = replace(action, embodiments=wanted, conditioning=recipe.conditioning, **_denoising(recipe))
    config = replace(
        config,
        moe=moe,
        action=action,
        images=_images(recipe, config.images),
        readings=recipe.readings or config.readings,
        action_loss_weight=recipe.action_loss_weight,
        system=recipe.system,
    )
    model = _rebuilt(model, config, recipe)
    origin = {"init": recipe.init, "init_sha256": checkpoint.sha256}
    return StartModel(model=model, codec=checkpoint.codec, robots=checkpoint.robots, origin=origin)


def _rebuilt(model: ChatVLA2, config: ChatVLA2Config, recipe: Recipe) -> ChatVLA2:
    """Return `model` with the mixture and action expert of `config`; what both have keeps its weights."""
    if config == model.config:
        return model
    backbone, kinds = model.backbone, (model.config.moe.kind, config.moe.kind)
    if kinds == (MoeKind.DYNAMIC, MoeKind.DENSE):
        # The action expert was trained on what the experts said.
        return ChatVLA2(config, average_experts(backbone))
    if kinds[0] != kinds[1]:
        if kinds[0] is not MoeKind.DENSE:
            raise RecipeError(f"{recipe.init} is {kinds[0]} already; leave moe at keep")
        backbone = upcycle_backbone(backbone, config.moe, seed=recipe.seed)
    fresh = ChatVLA2(config, backbone)
    expert = fresh.expert.state_dict()
    kept = {
        name: value
        for name, value in model.expert.state_dict().items()
        if name in expert and value.shape == expert[name].shape
    }
    fresh.expert.load_state_dict(expert | kept)
    fresh.queries_QV.data.copy_(model.queries_QV.data)
    return fresh


def _from_qwen(recipe: Recipe, specs: Sequence[RobotSpec]) -> StartModel:
    folder = resolve_folder(recipe.init)
    backbone = load_backbone(folder, dtype=torch.float32)
    moe = _moe(recipe)
    if moe.kind is not MoeKind.DENSE:
        backbone = upcycle_backbone(backbone, moe, seed=recipe.seed)
    config = replace(_config(recipe, specs, None), backbone=BackboneConfig.from_transformers(backbone.config))
    config = replace(config, images=_images(recipe, config.images))
    codec = TextCodec.from_file(folder / "tokenizer.json")
    return StartModel(model=ChatVLA2(config, backbone), codec=codec, robots=(), origin={"init": recipe.init})


def _freeze(model: ChatVLA2, prefixes: str) -> None:
    """Freeze parameters by the start of their names. Raises RecipeError when a prefix fits none."""
    for prefix in (part.strip() for part in prefixes.split(",") if part.strip()):
        found = [parameter for name, parameter in model.named_parameters() if name.startswith(prefix)]
        if not found:
            tops = sorted({".".join(name.split(".")[:3]) for name, _ in model.named_parameters()})
            raise RecipeError(f"freeze: no parameter starts with {prefix!r}; there are: {', '.join(tops)}")
        for parameter in found:
            parameter.requires_grad_(False)
