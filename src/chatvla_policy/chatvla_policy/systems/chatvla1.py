# SPDX-License-Identifier: Apache-2.0
"""Run a ChatVLA-1 checkpoint as a policy: one MLP path for understanding, one for control, attention shared.

The path is chosen by the task, told apart by the system prompts "Answer based on question" and "Predict robot action"
(processing/prompts.py), so one path is active per call; reasoning enters the action head by FiLM, as in DexVLA.
Everything else is ChatVLA-2's. (ChatVLA-1, sections 3.2 and 3.3)
"""

from __future__ import annotations

from typing import Any

from chatvla_policy.checkpoint import Checkpoint, CheckpointError
from chatvla_policy.model.config import ChatVLA2Config
from chatvla_policy.model.moe import MoeKind
from chatvla_policy.systems.chatvla2 import ChatVLA2Policy

__all__ = ["ChatVLA1Policy"]


class ChatVLA1Policy(ChatVLA2Policy):
    """Policy of one ChatVLA-1 checkpoint."""

    @staticmethod
    def unfit(config: ChatVLA2Config) -> str:
        """Return why a model of `config` is none of this system; empty for one that is."""
        kind = config.moe.kind
        if kind is MoeKind.STATIC:
            return ""
        return f"a ChatVLA-1 checkpoint has a static mixture of experts, this one is {kind}"

    def __init__(self, checkpoint: Checkpoint, *, name: str = "chatvla1", **options: Any) -> None:
        """Run `checkpoint`; raises CheckpointError when its mixture is not the static one."""
        if reason := self.unfit(checkpoint.model.config):
            raise CheckpointError(reason)
        super().__init__(checkpoint, name=name, **options)
