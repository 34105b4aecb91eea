# SPDX-License-Identifier: Apache-2.0
"""Write a training's model as it is before the first step: what the router's drift is measured from."""

from __future__ import annotations

from pathlib import Path

from chatvla_policy.checkpoint import Checkpoint, save_checkpoint
from chatvla_training.build_data import robot_data, robot_setups
from chatvla_training.build_model import start_model
from chatvla_training.provenance import commit
from chatvla_training.recipe import Recipe
from chatvla_training.training_run import make_room_for_texts

__all__ = ["save_step0"]


def save_step0(recipe: Recipe, folder: Path) -> None:
    """Write what `recipe` starts from, experts and action expert made, as checkpoint `folder`.

    Raises RecipeError, and what the loaders of start and data raise.
    """
    robot = robot_data(recipe)
    start = start_model(recipe, robot.specs(recipe.robot))
    make_room_for_texts(start, robot)
    provenance = {"recipe": recipe.to_dict(), "commit": commit(), "trained": "no: step 0", **start.origin}
    checkpoint = Checkpoint(
        model=start.model.eval(),
        codec=start.codec,
        robots=robot_setups(recipe, robot, start.robots),
        provenance=provenance,
    )
    save_checkpoint(folder, checkpoint, storage=recipe.storage)
