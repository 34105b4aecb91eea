# SPDX-License-Identifier: Apache-2.0
"""Carry routing information to the mixture layers and their choices back, per call and per thread.

transformers calls an MLP with hidden states only. What else a mixture layer needs (path, padding) and what it leaves
behind (choices, gates, logits) travels in one context variable, so that concurrent calls never see each other:

    with routing(Routing(path=Path.CONTROL, valid_BT=mask)) as trace:
        output = backbone.model(...)
    loss = language_loss + trace.loss()

Take `trace.loss()` before the backward pass, and leave the block before it, so that gradient checkpointing's second
forward records nothing.
Legend: B batch, T tokens, N = B * T flat tokens, E experts, K chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from chatvla_policy.model.moe.config import MoeConfig, Path
from chatvla_policy.model.moe.losses import balance_loss, z_loss

__all__ = [
    "LayerRouting",
    "Routing",
    "RoutingError",
    "RoutingTrace",
    "active",
    "flat_path",
    "narrowed",
    "routing",
    "scope",
]


class RoutingError(ValueError):
    """Routing information that does not fit the tokens; the message names both shapes."""


@dataclass(frozen=True, kw_only=True)
class Routing:
    """What the mixture layers need to know about the tokens beside their hidden states."""

    path: Path | Tensor = Path.UNDERSTANDING
    """Static path: one for the call, or integers of shape (B,) or (B, T)."""
    valid_BT: Tensor | None = None
    """False where a token is padding; None when none is. Padding counts in no loss and no statistic."""

    def __post_init__(self) -> None:
        """Raise RoutingError for path numbers that no static expert has."""
        if isinstance(self.path, Tensor) and self.path.numel():
            low, high = int(self.path.min()), int(self.path.max())
            if low < 0 or high >= len(Path):
                raise RoutingError(f"path numbers span {low}..{high}; known paths are 0..{len(Path) - 1}")


@dataclass(frozen=True, kw_only=True)
class LayerRouting:
    """What one mixture layer chose in one forward."""

    chosen_NK: Tensor
    """Expert numbers, most weight first."""
    gates_NK: Tensor
    """Gate weights, float32; each row sums to 1."""
    logits_NE: Tensor | None
    """Router logits without noise, float32; None where no router exists."""
    valid_N: Tensor | None


@dataclass(kw_only=True)
class RoutingTrace:
    """What every mixture layer chose inside one `routing` block, forward by forward."""

    layers: dict[int, list[LayerRouting]] = field(default_factory=dict)
    config: MoeConfig | None = None

    def loss(self) -> Tensor:
        """Return the weighted balance and z losses, a scalar, averaged over layers; 0 when both are off."""
        config = self.config
        if config is None or not (config.balance_weight or config.z_weight):
            return torch.zeros(())
        records = [record for layer in self.layers.values() for record in layer if record.logits_NE is not None]
        total = torch.zeros(())
        for record in records:
            assert record.logits_NE is not None
            if config.balance_weight:
                balance = balance_loss(record.logits_NE, record.chosen_NK, record.valid_N)
                total = total.to(balance.device) + config.balance_weight * balance
            if config.z_weight:
                spread = z_loss(record.logits_NE, record.valid_N)
                total = total.to(spread.device) + config.z_weight * spread
        return total / max(1, len(records))


@dataclass(frozen=True)
class _Active:
    routing: Routing
    trace: RoutingTrace | None


_ACTIVE: ContextVar[_Active | None] = ContextVar("chatvla_routing", default=None)


def active() -> _Active | None:
    """Return the routing block this code runs in, or None."""
    return _ACTIVE.get()


@contextmanager
def routing(info: Routing | None = None) -> Iterator[RoutingTrace]:
    """Route every mixture layer called in this block by `info`; yields the trace of what they choose."""
    trace = RoutingTrace()
    token = _ACTIVE.set(_Active(info or Routing(), trace))
    try:
        yield trace
    finally:
        _ACTIVE.reset(token)


@contextmanager
def scope(outer: _Active | None) -> Iterator[None]:
    """Run in the routing block `outer`, recording only if it is still the active one."""
    if outer is None or outer is _ACTIVE.get():
        yield
        return
    # A second forward of gradient checkpointing: same routes, nothing to record twice.
    token = _ACTIVE.set(_Active(outer.routing, None))
    try:
        yield
    finally:
        _ACTIVE.reset(token)


@contextmanager
def narrowed(valid_BT: Tensor | None) -> Iterator[None]:
    """Keep the active block's path and trace, with another padding mask; does nothing outside a block."""
    outer = _ACTIVE.get()
    if outer is None or outer.routing.valid_BT is valid_BT:
        yield
        return
    token = _ACTIVE.set(_Active(replace(outer.routing, valid_BT=valid_BT), outer.trace))
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def flat_path(path: Path | Tensor, batch: int, tokens: int) -> Path | Tensor:
    """Return `path` as one Path, or as integers of shape (N,); raises RoutingError when it does not fit."""
    if not isinstance(path, Tensor):
        return Path(path)
    if path.shape == (batch,):
        return path[:, None].expand(batch, tokens).reshape(-1)
    if path.shape == (batch, tokens):
        return path.reshape(-1)
    raise RoutingError(
        f"path has shape {tuple(path.shape)}; tokens have shape ({batch}, {tokens}): "
        f"give one Path, ({batch},) or ({batch}, {tokens}) integers"
    )
