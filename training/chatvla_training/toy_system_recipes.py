# SPDX-License-Identifier: Apache-2.0
"""Recipes of the other systems for the toy bench: those of the math bench, with what the toy plan changes in its own.

Robot, camera, chunk, data, action expert, readings, age of texts and steps follow the toy plan; what makes a system
is the math bench's. All but the diffusion policy start from what the toy plan starts its own stage 1 from.
"""

from __future__ import annotations

from dataclasses import fields, replace

from chatvla_training.recipe import Recipe
from chatvla_training.recipes_baselines import TINY_DENSE1, TINY_DENSE2, TINY_DIFFUSION
from chatvla_training.recipes_chatvla1 import TINY1, TINY2, TINY3
from chatvla_training.recipes_vlm2vla import TINY as TINY_VLM2VLA
from chatvla_training.recipes_vlm2vla import TINY_LISTS
from chatvla_training.tiny_recipes import TINY_STAGE1, TINY_STAGE2
from chatvla_training.tiny_toy_recipes import CAMERAS, DATA, HORIZON, ROBOT, TOYS_STAGE1, TOYS_STAGE2

__all__ = ["TOY_SYSTEM_PLANS", "TOY_SYSTEM_RECIPES"]

DENSE, CHATVLA1 = "tiny_toys_dense_film", "tiny_toys_chatvla1"
"""Names of the plans, with which those of their recipes begin."""


def _as_toys(recipe: Recipe, *, math: Recipe, toys: Recipe) -> Recipe:
    """Return `recipe` with every field in which `toys` differs from `math`, but for those that it changes itself."""
    names = [item.name for item in fields(Recipe) if item.name not in ("name", "summary")]
    changes = {
        name: getattr(toys, name)
        for name in names
        if getattr(toys, name) != getattr(math, name) == getattr(recipe, name)
    }
    return replace(recipe, **changes)


def _stage1(recipe: Recipe) -> Recipe:
    return _as_toys(recipe, math=TINY_STAGE1, toys=TOYS_STAGE1)


def _stage2(recipe: Recipe) -> Recipe:
    return _as_toys(recipe, math=TINY_STAGE2, toys=TOYS_STAGE2)


DENSE1 = replace(
    _stage1(TINY_DENSE1),
    name=f"{DENSE}_stage1",
    summary="tiny dense + FiLM, toys: all of the model on image-text and robot data",
)
DENSE2 = replace(
    _stage2(TINY_DENSE2),
    name=f"{DENSE}_stage2",
    summary="tiny dense + FiLM, toys: the action expert alone on kept features",
    init=f"runs/{DENSE}/{DENSE1.name}/policy",
)
CHATVLA1_STAGE1 = replace(
    _stage1(TINY1),
    name=f"{CHATVLA1}_stage1",
    summary="tiny ChatVLA-1, toys: control path and action head on robot data with reasoning",
    init=TOYS_STAGE1.init,
    steps=TOYS_STAGE1.steps // 2,
)
CHATVLA1_STAGE2 = replace(
    _stage1(TINY2),
    name=f"{CHATVLA1}_stage2",
    summary="tiny ChatVLA-1, toys: all of the model, image-text to robot data 1:3",
    init=f"runs/{CHATVLA1}/{CHATVLA1_STAGE1.name}/policy",
    steps=TOYS_STAGE1.steps - CHATVLA1_STAGE1.steps,
)
CHATVLA1_HEAD = replace(
    _stage2(TINY3),
    name=f"{CHATVLA1}_head",
    summary="tiny ChatVLA-1, toys: the action head alone on kept features",
    init=f"runs/{CHATVLA1}/{CHATVLA1_STAGE2.name}/policy",
)
DIFFUSION = replace(
    TINY_DIFFUSION,
    name="tiny_toys_diffusion_policy",
    summary="tiny diffusion policy without language, toys",
    robot=ROBOT,
    cameras=CAMERAS,
    horizon=HORIZON,
    data=DATA,
    steps=TOYS_STAGE2.steps,
)
VLM2VLA = replace(
    TINY_VLM2VLA,
    name="tiny_toys_vlm2vla",
    summary="tiny VLM2VLA, toys: adapters on the tiny pretrained VLM",
    init=TOYS_STAGE1.init,
    robot=ROBOT,
    cameras=CAMERAS,
    horizon=HORIZON,
    data=f"{DATA}_language",
)
VLM2VLA_LISTS = replace(
    _as_toys(TINY_LISTS, math=TINY_VLM2VLA, toys=VLM2VLA),
    name="tiny_toys_vlm2vla_lists",
    summary="tiny VLM2VLA, toys, from there on: half of the questions ask for the list of a plan",
    init="runs/tiny_toys_vlm2vla/policy",
)

TOY_SYSTEM_RECIPES: tuple[Recipe, ...] = (
    CHATVLA1_STAGE1,
    CHATVLA1_STAGE2,
    CHATVLA1_HEAD,
    DENSE1,
    DENSE2,
    DIFFUSION,
    VLM2VLA,
    VLM2VLA_LISTS,
)
TOY_SYSTEM_PLANS: dict[str, tuple[str, ...]] = {
    CHATVLA1: (CHATVLA1_STAGE1.name, CHATVLA1_STAGE2.name, CHATVLA1_HEAD.name),
    DENSE: (DENSE1.name, DENSE2.name),
}
