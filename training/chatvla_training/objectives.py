# SPDX-License-Identifier: Apache-2.0
"""List what a recipe may minimise. A new objective is one function here: what was built -> (task, collate)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor

from chatvla_training.build_data import Collate
from chatvla_training.build_model import StartModel
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.trainer.by_kind import ByKindCollate, ByKindTask
from chatvla_training.trainer.task import TrainingTask, VlaTask

__all__ = ["OBJECTIVES", "Built", "make_objective"]


@dataclass(frozen=True, kw_only=True)
class Built:
    """What an objective is made from."""

    recipe: Recipe
    start: StartModel
    collate: Collate
    half_width: dict[str, Tensor]


CollateFunction = Callable[[Sequence[Any]], Any]

OBJECTIVES: dict[str, str] = {
    "vla": "chatvla_training.objectives:vla",
    "by_kind": "chatvla_training.objectives:by_kind",
    "glyphs": "chatvla_training.dense_objectives:glyphs",
    "align": "chatvla_training.dense_objectives:align",
    "align_sheets": "chatvla_training.dense_objectives:align_sheets",
    "imagined": "chatvla_training.imagined_objective:imagined",
    "objects": "chatvla_training.toy_objectives:objects",
    "objects_align": "chatvla_training.toy_objectives:objects_align",
    "objects_imagined": "chatvla_training.toy_imagined:objects_imagined",
    "objects_imagined_clearly": "chatvla_training.toy_imagined:objects_imagined_clearly",
}
"""Name to `module:function`."""


def vla(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return the model's own loss: written text, and action chunks where the stage trains them."""
    return VlaTask(built.start.model, built.half_width), built.collate


def by_kind(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return the same loss, with a forward for each kind of sample: less padding."""
    return ByKindTask(built.start.model, built.half_width), ByKindCollate(built.collate)


def make_objective(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return task and collate function of the recipe's objective. Raises RecipeError listing those that exist."""
    name = built.recipe.objective
    if name not in OBJECTIVES:
        raise RecipeError(f"there is no objective {name!r}; there are: {', '.join(OBJECTIVES)}")
    module, _, function = OBJECTIVES[name].partition(":")
    return getattr(import_module(module), function)(built)
