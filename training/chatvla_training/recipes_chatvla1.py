# SPDX-License-Identifier: Apache-2.0
"""Recipes of ChatVLA-1: phased alignment of a static mixture (ChatVLA-1, section 3.3, Table 5).

Stage 1: robot data with reasoning, the control path and the action head alone, constant rate. Stage 2: all of the
model on image-text and robot data 1:3, cosine. Both: batch 128, lr 2e-5, Qwen2-VL-2B, 320x240, three views.
The paper gives no number of steps: 50k each, ChatVLA-2's. The paper's shared attention may train in stage 1 ("only
the control expert is activated" leaves it open); here it does not, so what understanding runs through stays untouched.
Departures at tiny size: it starts from the shipped base, and a third run trains the head alone on kept features, for
as many steps as ChatVLA-2's.
"""

from __future__ import annotations

from dataclasses import replace

from chatvla_training.recipe import Recipe
from chatvla_training.tiny_recipes import TINY_STAGE1, TINY_STAGE2

__all__ = ["CHATVLA1_PLANS", "CHATVLA1_RECIPES"]

STAGE1 = Recipe(
    name="chatvla1_stage1",
    summary="ChatVLA-1, stage 1: control path and action head on robot data with reasoning",
    stage="control",
    system="chatvla1",
    init="Qwen/Qwen2-VL-2B-Instruct",
    size="qwen2vl_2b",
    moe="static",
    conditioning="film",
    ratio=(0, 1),
    steps=50_000,
    schedule="constant",
    checkpointing=True,
)
STAGE2 = replace(
    STAGE1,
    name="chatvla1_stage2",
    summary="ChatVLA-1, stage 2: all of the model, image-text to robot data 1:3",
    stage="stage1",
    init="runs/chatvla1/chatvla1_stage1/policy",
    moe="keep",
    ratio=(1, 3),
    schedule="cosine",
)
TINY1 = replace(
    TINY_STAGE1,
    name="tiny_chatvla1_stage1",
    summary="tiny ChatVLA-1: control path and action head on robot data with reasoning",
    stage="control",
    system="chatvla1",
    init="tiny_base",
    moe="static",
    conditioning="film",
    image_text="",
    ratio=(0, 1),
    schedule="constant",
    steps=TINY_STAGE1.steps // 2,
)
TINY2 = replace(
    TINY_STAGE1,
    name="tiny_chatvla1_stage2",
    summary="tiny ChatVLA-1: all of the model, image-text to robot data 1:3",
    system="chatvla1",
    init="runs/tiny_chatvla1/tiny_chatvla1_stage1/policy",
    moe="keep",
    conditioning="film",
    ratio=(1, 3),
    steps=TINY_STAGE1.steps - TINY1.steps,
)
TINY3 = replace(
    TINY_STAGE2,
    name="tiny_chatvla1_head",
    summary="tiny ChatVLA-1: the action head alone on kept features",
    system="chatvla1",
    init="runs/tiny_chatvla1/tiny_chatvla1_stage2/policy",
)

CHATVLA1_RECIPES: tuple[Recipe, ...] = (STAGE1, STAGE2, TINY1, TINY2, TINY3)
CHATVLA1_PLANS: dict[str, tuple[str, ...]] = {
    "chatvla1": (STAGE1.name, STAGE2.name),
    "tiny_chatvla1": (TINY1.name, TINY2.name, TINY3.name),
}
