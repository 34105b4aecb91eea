# SPDX-License-Identifier: Apache-2.0
"""Recipes of the tiny model: from nothing to the shipped checkpoint on a CPU."""

from __future__ import annotations

from dataclasses import replace

from chatvla_training.recipe import Recipe

__all__ = ["TINY_DEMOS", "TINY_PLANS", "TINY_RECIPES"]

TINY_BASE = Recipe(
    name="",
    summary="",
    stage="language",
    robot="arx_r5",
    ratio=(1, 0),
    steps=1,
    batch=16,
    micro_batch=16,
    lr=1e-3,
    lr_end=0.0,
    schedule="tail",
    warmup=50,
    beta2=0.98,
    weight_decay=0.05,
    precision="fp32",
    workers=1,
    checkpoint_every=200,
    shard=False,
    storage="float32",
)
"""What the stages that stand in for web pretraining share. fp32: most CPUs are slower in bf16."""
TINY_GLYPHS = replace(
    TINY_BASE,
    name="tiny_glyphs",
    summary="tiny: a new vision tower learns to see handwriting, on sheets with labelled patches",
    objective="glyphs",
    image_text="synthetic:sheets",
    init_gain=3.0,
    image_width=308,
    steps=2200,
    batch=32,
    micro_batch=32,
)
TINY_PLACES = replace(
    TINY_BASE,
    name="tiny_places",
    summary="tiny: a new language model learns, in text, what stands beside a number",
    objective="by_kind",
    image_text="synthetic:finds",
    init_gain=3.0,
    image_width=308,
    freeze="backbone.model.visual",
    schedule="constant",
    # Until the loss has fallen well below 0.14, where the places in the answers are a guess.
    steps=120,
    batch=64,
    micro_batch=32,
)
TINY_ALIGN = replace(
    TINY_BASE,
    name="tiny_align",
    summary="tiny: image tokens learn to say what they show and where, on labelled scenes",
    init="runs/tiny/tiny_places/policy",
    init_vision="runs/tiny/tiny_glyphs/policy",
    objective="align",
    image_text="synthetic:labelled",
    steps=1200,
)
TINY_WORDS = replace(
    TINY_BASE,
    name="tiny_words",
    summary="tiny: the language model learns to read, solve, find and explain, from image tokens made of words",
    init="runs/tiny/tiny_places/policy",
    objective="imagined",
    image_text="synthetic:imagined",
    # tiny_align turns image tokens towards the words as they are.
    freeze="backbone.model.visual,backbone.model.language_model.embed_tokens",
    schedule="constant",
    steps=150,
    batch=32,
    micro_batch=32,
)
TINY_PRETRAIN = replace(
    TINY_BASE,
    name="tiny_pretrain",
    summary="tiny: the same dialogues about pictures, vision and language together",
    init="runs/tiny/tiny_words/policy",
    init_vision="runs/tiny/tiny_align/policy",
    objective="by_kind",
    image_text="synthetic:all",
    batch=32,
    micro_batch=16,
    schedule="constant",
    steps=400,
    lr=7e-4,
)
TINY_SHARPEN = replace(
    TINY_ALIGN,
    name="tiny_sharpen",
    summary="tiny: as tiny_align, towards the words as the dialogues have left them, with sheets beside the scenes",
    init="runs/tiny/tiny_pretrain/policy",
    init_vision="",
    # Digits on cards are what most misread numbers come from, and they cover a twentieth of a scene.
    objective="align_sheets",
    image_text="synthetic:pages",
    steps=1200,
)
TINY_SETTLE = replace(
    TINY_PRETRAIN,
    name="tiny_settle",
    summary="tiny: the language model learns to read the sharpened image tokens, the tower frozen",
    init="runs/tiny/tiny_sharpen/policy",
    init_vision="",
    freeze="backbone.model.visual",
    schedule="tail",
    steps=300,
    lr_end=1e-5,
)
TINY_STAGE1 = Recipe(
    name="tiny_stage1",
    summary="tiny: all of the model but its tower, 8 experts, on image-text and robot data",
    stage="stage1",
    objective="by_kind",
    init="runs/tiny/tiny_settle/policy",
    robot="arx_r5",
    data="data/math_match",
    image_text="synthetic:all",
    # A few hundred demonstrations, learned by heart, would cost the tower what it knows of where things are.
    freeze="backbone.model.visual",
    moe="dynamic",
    balance_weight=0.01,
    relative_actions=True,
    action_size="compact",
    # Errors of a clean chunk are small numbers beside the language loss.
    action_loss_weight=10.0,
    # More image-text data than the papers' 1:3: this model is still learning to read.
    ratio=(1, 1),
    steps=400,
    batch=24,
    micro_batch=12,
    lr=5e-4,
    lr_end=1e-5,
    warmup=30,
    beta2=0.98,
    weight_decay=0.05,
    precision="fp32",
    workers=1,
    after_end=True,
    # A digit on a card fills about one patch: read where it falls into others, too, fewer are misread.
    readings=3,
    validate_every=200,
    checkpoint_every=100,
    shard=False,
    storage="float32",
)
TINY_STAGE2 = Recipe(
    name="tiny_stage2",
    summary="tiny: the action expert alone, on kept features",
    stage="stage2",
    init="runs/tiny/tiny_stage1/policy",
    robot="arx_r5",
    data="data/math_match",
    ratio=(0, 1),
    brief=0.25,
    # Frames half as often, from more demonstrations: features take longer than training on them.
    frame_every=2,
    cache_features=True,
    cache_draws=1,
    displace_rad=0.04,
    steps=2000,
    batch=128,
    micro_batch=128,
    lr=2e-3,
    lr_end=1e-5,
    warmup=100,
    beta2=0.98,
    ema=0.998,
    precision="fp32",
    workers=1,
    after_end=True,
    validate_every=500,
    checkpoint_every=250,
    shard=False,
    # Targets are known to a few thousandths, which bfloat16 would round away.
    storage="mixed",
)

TINY_RECIPES: tuple[Recipe, ...] = (
    TINY_GLYPHS,
    TINY_PLACES,
    TINY_ALIGN,
    TINY_WORDS,
    TINY_PRETRAIN,
    TINY_SHARPEN,
    TINY_SETTLE,
    TINY_STAGE1,
    TINY_STAGE2,
)
TINY_PLANS: dict[str, tuple[str, ...]] = {"tiny": tuple(recipe.name for recipe in TINY_RECIPES)}
TINY_DEMOS: dict[str, tuple[str, ...]] = {
    "data/math_match": ("math_match", "--episodes", "1100", "--frame-hz", "4"),
}
