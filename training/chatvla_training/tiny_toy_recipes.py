# SPDX-License-Identifier: Apache-2.0
"""Recipes of the tiny model for the toy bench: the steps of tiny_recipes.py, with things in place of handwriting.

Pictures are larger than the math model's (336 px wide, 108 image tokens): a toy is 20 px in the camera's 320. Chunks
have the paper's 16 steps at 15 Hz. Tower and language model learn apart and meet in `tiny_toys_pretrain`, as there.
"""

from __future__ import annotations

from dataclasses import replace

from chatvla_training.recipe import Recipe
from chatvla_training.tiny_recipes import (
    TINY_ALIGN,
    TINY_GLYPHS,
    TINY_PLACES,
    TINY_PRETRAIN,
    TINY_SETTLE,
    TINY_STAGE1,
    TINY_STAGE2,
    TINY_WORDS,
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
TOYS_POINTS = replace(
    _for_toys(
        TINY_PLACES,
        "tiny_toys_points",
        "tiny, toys: a new language model learns to find things in image tokens made of words, before it explains",
    ),
    objective="objects_imagined_clearly",
    image_text="synthetic:toys_imagined_points",
    image_width=336,
    batch=32,
    # Long dialogues drown what finds a label's own image tokens; pointing alone teaches it first.
    steps=300,
)
TOYS_ALIGN = replace(
    _for_toys(
        TINY_ALIGN,
        "tiny_toys_align",
        "tiny, toys: image tokens learn to say what they show and where it ends, on labelled tables",
    ),
    init="runs/tiny_toys/tiny_toys_points/policy",
    init_vision="runs/tiny_toys/tiny_toys_objects/policy",
    objective="objects_align",
    image_text="synthetic:toys_labelled",
    # More than the math model's: a rectangle's sides are harder to say than one of five places.
    steps=1500,
)
TOYS_WORDS = replace(
    _for_toys(
        TINY_WORDS,
        "tiny_toys_words",
        "tiny, toys: the language model learns to name, relate and explain, from image tokens made of words",
    ),
    init="runs/tiny_toys/tiny_toys_points/policy",
    objective="objects_imagined",
    image_text="synthetic:toys_imagined",
    steps=400,
)
TOYS_PRETRAIN = replace(
    _for_toys(TINY_PRETRAIN, "tiny_toys_pretrain", "tiny, toys: the same dialogues about pictures, both together"),
    init="runs/tiny_toys/tiny_toys_words/policy",
    init_vision="runs/tiny_toys/tiny_toys_align/policy",
    image_text="synthetic:toys_all",
    steps=700,
)
TOYS_SHARPEN = replace(
    TOYS_ALIGN,
    name="tiny_toys_sharpen",
    summary="tiny, toys: as tiny_toys_align, towards the words as the dialogues have left them",
    init="runs/tiny_toys/tiny_toys_pretrain/policy",
    init_vision="",
)
TOYS_SETTLE = replace(
    _for_toys(TINY_SETTLE, "tiny_toys_settle", "tiny, toys: the language model learns to read the sharpened tokens"),
    init="runs/tiny_toys/tiny_toys_sharpen/policy",
    image_text="synthetic:toys_all",
    steps=350,
)
TOYS_STAGE1 = replace(
    _for_toys(TINY_STAGE1, "tiny_toys_stage1", "tiny, toys: all of the model, 8 experts, on image-text and robot data"),
    init="runs/tiny_toys/tiny_toys_settle/policy",
    data=DATA,
    image_text="synthetic:toys_all",
    action_size="compact_numbers",
    # Further readings see other rectangles: they are cut from pictures that were moved or zoomed.
    readings=1,
    steps=800,
)
TOYS_STAGE2 = replace(
    _for_toys(TINY_STAGE2, "tiny_toys_stage2", "tiny, toys: the action expert alone, on kept features"),
    init="runs/tiny_toys/tiny_toys_stage1/policy",
    data=DATA,
    # A policy goes on with a text for so long; what it lifts and carries meanwhile is where the text does not say.
    text_age_s=2.0,
    brief=0.1,
    # An arm at home is at an episode's beginning or at its end; what tells is whether the toy is where it goes.
    starts=4,
    # Joints moved by more than the grip forgives hide from the arm whether it is there.
    displace_rad=0.02,
    steps=5000,
)
TOYS_BASE = replace(
    TOYS_SETTLE,
    name="tiny_toys_base",
    summary="tiny, toys: a dense start for other systems, made of the shipped policy's experts",
    init="tiny_toys",
    moe="dense",
    action_size="tiny",
    # The mean knows what its experts knew; this only settles it.
    steps=30,
    lr=1e-4,
    warmup=5,
    storage="bfloat16",
)

TOY_RECIPES: tuple[Recipe, ...] = (
    TOYS_OBJECTS,
    TOYS_POINTS,
    TOYS_ALIGN,
    TOYS_WORDS,
    TOYS_PRETRAIN,
    TOYS_SHARPEN,
    TOYS_SETTLE,
    TOYS_STAGE1,
    TOYS_STAGE2,
    TOYS_BASE,
)
TOY_PLANS: dict[str, tuple[str, ...]] = {
    "tiny_toys": tuple(recipe.name for recipe in TOY_RECIPES if recipe is not TOYS_BASE)
}
TOY_DEMOS: dict[str, tuple[str, ...]] = {
    "data/toy_placement": ("toy_placement", "--episodes", "1200", "--frame-hz", "4"),
}
