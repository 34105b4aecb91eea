# SPDX-License-Identifier: Apache-2.0
"""Recipes of the baselines, on the data and for the steps of ChatVLA-2's: what is compared is the system alone.

dense_film: no experts, reasoning enters by FiLM (close to DexVLA; ChatVLA-2, section 3.2 and Tables 1 and 2).
diffusion_policy: pictures and joints to actions, no language (Chi et al. 2023; ChatVLA-2's Table 1).
"""

from __future__ import annotations

from dataclasses import replace

from chatvla_training.recipe import Recipe
from chatvla_training.tiny_recipes import TINY_STAGE1, TINY_STAGE2

__all__ = ["BASELINE_PLANS", "BASELINE_RECIPES"]

DENSE1 = Recipe(
    name="dense_film_stage1",
    summary="dense + FiLM, stage 1: ChatVLA-2's without experts",
    stage="stage1",
    system="dense_film",
    init="Qwen/Qwen2-VL-2B-Instruct",
    size="qwen2vl_2b",
    moe="dense",
    conditioning="film",
    steps=50_000,
    checkpointing=True,
)
DENSE2 = replace(
    DENSE1,
    name="dense_film_stage2",
    summary="dense + FiLM, stage 2: the action expert alone",
    stage="stage2",
    init="runs/dense_film/dense_film_stage1/policy",
    moe="keep",
    ratio=(0, 1),
    checkpointing=False,
    cache_features=True,
)
TINY_DENSE1 = replace(
    TINY_STAGE1,
    name="tiny_dense_film_stage1",
    summary="tiny dense + FiLM: all of the model on image-text and robot data",
    system="dense_film",
    moe="dense",
    conditioning="film",
)
TINY_DENSE2 = replace(
    TINY_STAGE2,
    name="tiny_dense_film_stage2",
    summary="tiny dense + FiLM: the action expert alone on kept features",
    system="dense_film",
    init="runs/tiny_dense_film/tiny_dense_film_stage1/policy",
)
DIFFUSION = Recipe(
    name="diffusion_policy",
    summary="diffusion policy without language: pictures and joints to actions",
    stage="stage1",
    system="diffusion_policy",
    action_size="S",
    ratio=(0, 1),
    steps=50_000,
    batch=64,
    micro_batch=64,
    lr=1e-4,
    lr_end=0.0,
    warmup=500,
    beta1=0.95,
    weight_decay=1e-6,
    ema=0.9999,
    # Small beside its data: each device holds all of it.
    shard=False,
)
TINY_DIFFUSION = replace(
    DIFFUSION,
    name="tiny_diffusion_policy",
    summary="tiny diffusion policy without language",
    data="data/math_match",
    action_size="tiny",
    relative_actions=TINY_STAGE1.relative_actions,
    steps=TINY_STAGE2.steps,
    lr=5e-4,
    warmup=100,
    ema=0.999,
    precision="fp32",
    validate_every=1000,
)

BASELINE_RECIPES: tuple[Recipe, ...] = (DENSE1, DENSE2, TINY_DENSE1, TINY_DENSE2, DIFFUSION, TINY_DIFFUSION)
BASELINE_PLANS: dict[str, tuple[str, ...]] = {
    "dense_film": (DENSE1.name, DENSE2.name),
    "tiny_dense_film": (TINY_DENSE1.name, TINY_DENSE2.name),
}
