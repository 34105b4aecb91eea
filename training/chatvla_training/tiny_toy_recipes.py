# SPDX-License-Identifier: Apache-2.0
"""Recipes of the tiny model for the toy bench: the steps of tiny_recipes.py, with things in place of handwriting.

Pictures are larger than the math model's (336 px wide, 108 image tokens): a toy is 20 px in the camera's 320. Chunks
have the paper's 16 steps at 15 Hz.
"""

from __future__ import annotations

from dataclasses import replace

from chatvla_training.recipe import Recipe
from chatvla_training.tiny_recipes import (
    TINY_ALIGN,
    TINY_BASE,
    TINY_GLYPHS,
    TINY_PRETRAIN,
    TINY_SETTLE,
    TINY_STAGE1,
    TINY_STAGE2,
)

__all__ = ["TOY_DEMOS", "TOY_PLANS", "TOY_RECIPES"]

ROBOT, CAMERAS, HORIZON = "franka", "right", 16
DATA = "data/toy_placement"


def _for_toys(recipe: Recipe, name: str, summary: str) -> Recipe:
    return replace(recipe, name=name, summary=summary, robot=ROBOT, cameras=CAMERAS, horizon=HORIZON)


TOYS_OBJECTS = replace(
    _for_toys(
        TINY_GLYPHS,
        "tiny_toys_objects",
        "tiny, toys: a new vision tower learns to see kinds, colours and rectangles, on crowded tables",
    ),
    objective="objects",
    image_text="synthetic:toys_crowds",
    image_width=336,
    batch=16,
    micro_batch=16,
)
TOYS_TOLD = replace(
    _for_toys(TINY_BASE, "tiny_toys_told", "tiny, toys: the language model points and places in scenes told in words"),
    init="runs/tiny_toys/tiny_toys_objects/policy",
    image_text="synthetic:toys_told",
    steps=3000,
    batch=32,
    micro_batch=32,
)
TOYS_ALIGN = replace(
    _for_toys(
        TINY_ALIGN,
        "tiny_toys_align",
        "tiny, toys: image tokens learn to say what they show and where it ends, on labelled tables",
    ),
    init="runs/tiny_toys/tiny_toys_told/policy",
    init_vision="",
    objective="objects_align",
    image_text="synthetic:toys_labelled",
    # More than the math model's: a rectangle's digits are harder to say than one of five places.
    steps=1500,
)
TOYS_WORDS = replace(
    _for_toys(TINY_BASE, "tiny_toys_words", "tiny, toys: short questions: point, name, list, relate"),
    init="runs/tiny_toys/tiny_toys_align/policy",
    objective="by_kind",
    # The language model knows little yet: its gradients would undo what the tower has learned.
    freeze="backbone.model.visual",
    image_text="synthetic:toys_short",
    steps=2400,
)
TOYS_PRETRAIN = replace(
    _for_toys(TINY_PRETRAIN, "tiny_toys_pretrain", "tiny, toys: dialogues about whole tables, with explanations"),
    init="runs/tiny_toys/tiny_toys_words/policy",
    init_vision="",
    image_text="synthetic:toys_all",
    batch=16,
    micro_batch=16,
    steps=1000,
)
TOYS_SHARPEN = replace(
    TOYS_ALIGN,
    name="tiny_toys_sharpen",
    summary="tiny, toys: as tiny_toys_align, towards the words as the dialogues have left them",
    init="runs/tiny_toys/tiny_toys_pretrain/policy",
    steps=800,
)
TOYS_SETTLE = replace(
    _for_toys(TINY_SETTLE, "tiny_toys_settle", "tiny, toys: the language model learns to read the sharpened tokens"),
    init="runs/tiny_toys/tiny_toys_sharpen/policy",
    image_text="synthetic:toys_all",
    steps=500,
)
TOYS_STAGE1 = replace(
    _for_toys(TINY_STAGE1, "tiny_toys_stage1", "tiny, toys: all of the model, 8 experts, on image-text and robot data"),
    init="runs/tiny_toys/tiny_toys_settle/policy",
    data=DATA,
    image_text="synthetic:toys_all",
)
TOYS_STAGE2 = replace(
    _for_toys(TINY_STAGE2, "tiny_toys_stage2", "tiny, toys: the action expert alone, on kept features"),
    init="runs/tiny_toys/tiny_toys_stage1/policy",
    data=DATA,
)

TOY_RECIPES: tuple[Recipe, ...] = (
    TOYS_OBJECTS,
    TOYS_TOLD,
    TOYS_ALIGN,
    TOYS_WORDS,
    TOYS_PRETRAIN,
    TOYS_SHARPEN,
    TOYS_SETTLE,
    TOYS_STAGE1,
    TOYS_STAGE2,
)
TOY_PLANS: dict[str, tuple[str, ...]] = {"tiny_toys": tuple(recipe.name for recipe in TOY_RECIPES)}
TOY_DEMOS: dict[str, tuple[str, ...]] = {"data/toy_placement": ("toy_placement", "--episodes", "600")}
