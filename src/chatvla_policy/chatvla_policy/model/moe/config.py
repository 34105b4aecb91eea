# SPDX-License-Identifier: Apache-2.0
"""Say which mixture of experts replaces a language model's MLPs (ChatVLA-2, section 3.2 and Tables 3 and 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import IntEnum, StrEnum
from typing import Any

__all__ = ["MoeConfig", "MoeConfigError", "MoeKind", "Path"]


class MoeConfigError(ValueError):
    """A mixture of experts that can't exist; the message names the field and its limit."""


class MoeKind(StrEnum):
    """What stands in the place of each language MLP; the rows of ChatVLA-2's Table 3."""

    DENSE = "dense"
    DYNAMIC = "dynamic"
    STATIC = "static"
    STATIC_DYNAMIC = "static+dynamic"
    SHARED_DYNAMIC = "shared+dynamic"


class Path(IntEnum):
    """Which static expert a token passes: the two system prompts of ChatVLA-1. Values are expert numbers."""

    UNDERSTANDING = 0
    CONTROL = 1


@dataclass(frozen=True, kw_only=True)
class MoeConfig:
    """A mixture of experts. The default is ChatVLA-2's: 8 experts, 2 per token, noisy top-k gating."""

    kind: MoeKind = MoeKind.DYNAMIC
    experts: int = 8
    """Number of routed experts, E."""
    top_k: int = 2
    """Routed experts per token, K."""
    noisy: bool = True
    """Add learned noise to the gate logits while training."""
    router_std: float = 0.02
    """Standard deviation of the router's initial weights; 0 is the start of Shazeer et al. 2017 (ties at inference)."""
    fixed_share: float = 0.5
    """Weight of the static or shared expert's output beside the routed experts' output, 0..1."""
    balance_weight: float = 0.0
    """Weight of the load-balance loss; 0 switches it off."""
    z_weight: float = 0.0
    """Weight of the router z-loss; 0 switches it off."""

    def __post_init__(self) -> None:
        """Raise MoeConfigError for a field outside its limits."""
        try:
            object.__setattr__(self, "kind", MoeKind(self.kind))
        except ValueError:
            raise MoeConfigError(f"kind is {self.kind!r}; known kinds: {', '.join(MoeKind)}") from None
        if self.experts < 1:
            raise MoeConfigError(f"experts is {self.experts}; it must be at least 1")
        if not 1 <= self.top_k <= self.experts:
            raise MoeConfigError(f"top_k is {self.top_k}; it must lie in 1..{self.experts}, the number of experts")
        if not 0.0 <= self.fixed_share <= 1.0:
            raise MoeConfigError(f"fixed_share is {self.fixed_share}; it must lie in 0..1")
        for name in ("router_std", "balance_weight", "z_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise MoeConfigError(f"{name} is {value}; it must be finite and not negative")

    @property
    def routed(self) -> bool:
        """True when a router chooses experts per token."""
        return self.kind in (MoeKind.DYNAMIC, MoeKind.STATIC_DYNAMIC, MoeKind.SHARED_DYNAMIC)

    @property
    def static(self) -> bool:
        """True when one expert per path exists."""
        return self.kind in (MoeKind.STATIC, MoeKind.STATIC_DYNAMIC)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that `from_dict` reads back."""
        return {**asdict(self), "kind": str(self.kind)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MoeConfig:
        """Return the config of `values`; raises MoeConfigError naming the first unknown key."""
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise MoeConfigError(f"unknown key {key!r}; known keys: {', '.join(sorted(known))}")
        return cls(**values)
