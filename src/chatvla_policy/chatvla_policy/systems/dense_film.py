# SPDX-License-Identifier: Apache-2.0
"""Run the baseline without experts: a dense language model whose reasoning enters the action head by FiLM.

What ChatVLA-2's Tables 3 and 6 call dense and without the reasoning-following module, and close to DexVLA.
"""

from __future__ import annotations

from typing import Any

from chatvla_policy.checkpoint import Checkpoint, CheckpointError
from chatvla_policy.model.config import ChatVLA2Config
from chatvla_policy.model.moe import MoeKind
from chatvla_policy.systems.chatvla2 import ChatVLA2Policy

__all__ = ["DenseFilmPolicy"]


class DenseFilmPolicy(ChatVLA2Policy):
    """Policy of one checkpoint of the dense baseline."""

    @staticmethod
    def unfit(config: ChatVLA2Config) -> str:
        """Return why a model of `config` is none of this system; empty for one that is."""
        if config.moe.kind is MoeKind.DENSE and config.action.conditioning == "film":
            return ""
        return (
            f"the dense baseline has no mixture and conditions by film; this one is {config.moe.kind} "
            f"with {config.action.conditioning}"
        )

    def __init__(self, checkpoint: Checkpoint, *, name: str = "dense_film", **options: Any) -> None:
        """Run `checkpoint`; raises CheckpointError when it is not dense with FiLM."""
        if reason := self.unfit(checkpoint.model.config):
            raise CheckpointError(reason)
        super().__init__(checkpoint, name=name, **options)
