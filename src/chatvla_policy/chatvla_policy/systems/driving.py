# SPDX-License-Identifier: Apache-2.0
"""Refuse a checkpoint that cannot move a robot yet: its action expert has not been trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatvla_policy.checkpoint.errors import CheckpointError

__all__ = ["check_can_drive"]


def check_can_drive(policy: Any) -> None:
    """Raise CheckpointError for a policy whose checkpoint comes from the training stage "language".

    Such a checkpoint still answers questions: what only asks need not call this. Systems without an action expert,
    which write their motion as text, pass.
    """
    provenance = getattr(getattr(policy, "checkpoint", None), "provenance", {})
    recipe = provenance.get("recipe")
    stage = recipe.get("stage") if isinstance(recipe, Mapping) else provenance.get("stage")
    if stage == "language":
        raise CheckpointError(
            f"checkpoint {policy.name!r} comes from training stage 'language', its action expert is untrained and "
            "cannot move a robot; train stage1 from it, or ask it questions with './chatvla eval understanding'"
        )
