# SPDX-License-Identifier: Apache-2.0
"""Recipes of the tiny model: from nothing to the shipped checkpoint on a CPU."""

from __future__ import annotations

from chatvla_training.recipe import Recipe

__all__ = ["TINY_PLANS", "TINY_RECIPES"]

TINY_STAGE1 = Recipe(
    name="tiny_stage1",
    summary="tiny: all of the model on image-text and robot data",
    stage="stage1",
    init="runs/tiny/tiny_pretrain/policy",
    data="data/math_match",
    image_text="synthetic:all",
    moe="dynamic",
    steps=2000,
    batch=24,
    micro_batch=24,
    lr=1e-4,
    lr_end=1e-5,
    warmup=50,
    beta2=0.98,
    weight_decay=0.05,
    validate_every=250,
    checkpoint_every=250,
)
TINY_STAGE2 = Recipe(
    name="tiny_stage2",
    summary="tiny: the action expert alone on kept features",
    stage="stage2",
    init="runs/tiny/tiny_stage1/policy",
    data="data/math_match",
    ratio=(0, 1),
    cache_features=True,
    steps=6000,
    batch=64,
    micro_batch=64,
    lr=5e-4,
    lr_end=1e-5,
    warmup=100,
    ema=0.999,
    precision="fp32",
    validate_every=1000,
)
TINY_PRETRAIN = Recipe(
    name="tiny_pretrain",
    summary="tiny: broad synthetic image-text data, from random weights",
    stage="language",
    image_text="synthetic:all",
    ratio=(1, 0),
    steps=10_000,
    batch=24,
    micro_batch=24,
    lr=1e-3,
    lr_end=0.0,
    schedule="tail",
    warmup=100,
    beta2=0.98,
    weight_decay=0.05,
)

TINY_RECIPES: tuple[Recipe, ...] = (TINY_PRETRAIN, TINY_STAGE1, TINY_STAGE2)
TINY_PLANS: dict[str, tuple[str, ...]] = {"tiny": ("tiny_pretrain", "tiny_stage1", "tiny_stage2")}
