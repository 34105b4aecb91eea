# SPDX-License-Identifier: Apache-2.0
"""Run the baseline without experts: a dense language model whose reasoning enters the action head by FiLM.

What ChatVLA-2's Tables 3 and 6 call dense and without the reasoning-following module, and close to DexVLA.
"""

from __future__ import annotations

from typing import Any

from chatvla_policy.checkpoint import Checkpoint, CheckpointError
from chatvla_policy.model.moe import MoeKind
from chatvla_policy.systems.chatvla2 import ChatVLA2Policy

__all__ = ["DenseFilmPolicy"]


class DenseFilmPolicy(ChatVLA2Policy):
    """Policy of one checkpoint of the dense baseline."""

    def __init__(self, checkpoint: Checkpoint, *, name: str = "dense_film", **options: Any) -> None:
        """Run `checkpoint`; raises CheckpointError when it is not dense with FiLM."""
        config = checkpoint.model.config
        if config.moe.kind is not MoeKind.DENSE or config.action.conditioning != "film":
            raise CheckpointError(
                f"the dense baseline has no mixture and conditions by film; this one is {config.moe.kind} "
                f"with {config.action.conditioning}"
            )
        super().__init__(checkpoint, name=name, **options)
