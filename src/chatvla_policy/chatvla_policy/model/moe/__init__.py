# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts in place of a language model's MLPs (ChatVLA-2, section 3.2)."""

from chatvla_policy.model.moe.config import MoeConfig, MoeConfigError, MoeKind, Path
from chatvla_policy.model.moe.layer import MoeDecoderLayer, MoeMlp
from chatvla_policy.model.moe.routing import LayerRouting, Routing, RoutingError, RoutingTrace, routing

__all__ = [
    "LayerRouting",
    "MoeConfig",
    "MoeConfigError",
    "MoeDecoderLayer",
    "MoeKind",
    "MoeMlp",
    "Path",
    "Routing",
    "RoutingError",
    "RoutingTrace",
    "routing",
]
