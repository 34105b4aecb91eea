# SPDX-License-Identifier: Apache-2.0
"""The action expert: a diffusion transformer conditioned on observation and reasoning."""

from chatvla_policy.model.action.conditioning import ReasoningTokens
from chatvla_policy.model.action.config import ACTION_SIZES, ActionConfig, Embodiment, action_size
from chatvla_policy.model.action.expert import ActionExpert

__all__ = ["ACTION_SIZES", "ActionConfig", "ActionExpert", "Embodiment", "ReasoningTokens", "action_size"]
