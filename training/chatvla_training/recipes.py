# SPDX-License-Identifier: Apache-2.0
"""List the recipes of `./chatvla train`.

The paper's own stages (ChatVLA-2, section 3.3 and supplement): AdamW, lr 2e-5 by cosine to 2e-6, 3000 warm-up steps,
50000 steps, bf16, image-text to robot data 1:3, the language model frozen in stage 2. The supplement gives 15000 steps
for stage 1, the body 50000: both are here. The batch is not given; 128 is ChatVLA-1's.
The tiny recipes train the shipped model on a CPU; their numbers are tuned for that.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches

from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.recipes_baselines import BASELINE_PLANS, BASELINE_RECIPES
from chatvla_training.recipes_chatvla1 import CHATVLA1_PLANS, CHATVLA1_RECIPES
from chatvla_training.recipes_vlm2vla import VLM2VLA_RECIPES
from chatvla_training.tiny_recipes import TINY_DEMOS, TINY_PLANS, TINY_RECIPES
from chatvla_training.tiny_toy_recipes import TOY_DEMOS, TOY_PLANS, TOY_RECIPES
from chatvla_training.toy_system_recipes import TOY_SYSTEM_PLANS, TOY_SYSTEM_RECIPES

__all__ = ["PLANS", "PLAN_DEMOS", "RECIPES", "find_recipe"]

STAGE1 = Recipe(
    name="stage1",
    summary="the paper's stage 1: all of the model on image-text and robot data, 50k steps",
    stage="stage1",
    init="Qwen/Qwen2-VL-2B-Instruct",
    size="qwen2vl_2b",
    moe="dynamic",
    steps=50_000,
    checkpointing=True,
)
STAGE2 = Recipe(
    name="stage2",
    summary="the paper's stage 2: the action expert alone, language model frozen, 50k steps",
    stage="stage2",
    init="runs/stage1/policy",
    size="qwen2vl_2b",
    ratio=(0, 1),
    steps=50_000,
    cache_features=True,
)
PRETRAIN = Recipe(
    name="pretrain",
    summary="broad synthetic image-text data for the tiny model: the stand-in for web pretraining",
    stage="language",
    image_text="synthetic:all",
    robot="arx_r5",
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

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        PRETRAIN,
        STAGE1,
        replace(STAGE1, name="stage1_15k", summary="stage 1 with the supplement's 15k steps", steps=15_000),
        STAGE2,
        *TINY_RECIPES,
        *TOY_RECIPES,
        *CHATVLA1_RECIPES,
        *BASELINE_RECIPES,
        *VLM2VLA_RECIPES,
        *TOY_SYSTEM_RECIPES,
    )
}
PLANS: dict[str, tuple[str, ...]] = {
    **TINY_PLANS,
    **TOY_PLANS,
    **CHATVLA1_PLANS,
    **BASELINE_PLANS,
    **TOY_SYSTEM_PLANS,
}
"""Recipes that run one after the other, each starting from checkpoints of those before."""
PLAN_DEMOS: dict[str, tuple[str, ...]] = {**TINY_DEMOS, **TOY_DEMOS}
"""How a plan records a data set that is not there yet: arguments of `./chatvla demos` by folder."""


def find_recipe(name: str) -> Recipe:
    """Return the recipe `name`. Raises RecipeError naming the nearest and listing all."""
    if name in RECIPES:
        return RECIPES[name]
    close = get_close_matches(name, [*RECIPES, *PLANS], n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else "."
    raise RecipeError(f"there is no recipe {name!r}{hint} Recipes: {', '.join([*RECIPES, *PLANS])}")
