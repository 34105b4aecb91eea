# SPDX-License-Identifier: Apache-2.0
"""Count which experts the tokens went to, in the terms of ChatVLA-2's OpenReview table (Expert Traffic per Layer).

Load is the share of routed slots (tokens times top-k) per expert and layer; entropy is that of the load, in bits;
the top ratio is the busiest expert's load over the idlest one's; drift is the total variation from a reference load.
Legend: L layers, E experts, K chosen, N flat tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from chatvla_control.contracts import InputKind, RouterStats
from chatvla_policy.model.moe.routing import RoutingTrace

__all__ = ["ExpertTraffic", "TokenRouting", "TrafficSummary", "router_stats", "token_routing", "traffic"]


@dataclass(frozen=True, kw_only=True)
class TokenRouting:
    """Where every token went, padding left out, in the order of the forwards."""

    chosen_LNK: NDArray[np.int64]
    """Expert numbers, most weight first."""
    gates_LNK: NDArray[np.float32]
    """Gate weights; the last axis sums to 1."""


@dataclass(frozen=True, kw_only=True)
class TrafficSummary:
    """The figures the authors gave for their router, averaged over layers, and ours beside them."""

    entropy_bits: float
    """Mean entropy of the load; log2(E) at most."""
    top_ratio: float
    """Mean of busiest over idlest expert."""
    std_tokens: float
    """Mean standard deviation of the slots per expert (over all experts of a layer)."""
    gate_entropy_bits: float
    """Mean entropy of one token's gate over its K experts: 0 certain, log2(K) undecided."""


@dataclass(kw_only=True)
class ExpertTraffic:
    """Slots per layer and expert, added up over any number of inferences, for one kind of input."""

    kind: InputKind
    top_k: int = 0
    counts_LE: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    gate_entropy_sum_bits: float = 0.0
    """Sum over layers and tokens of the gate's entropy."""

    @property
    def tokens(self) -> int:
        """Tokens counted per layer."""
        return int(self.counts_LE[0].sum()) // self.top_k if self.counts_LE.size else 0

    def add(self, other: ExpertTraffic) -> None:
        """Count `other` in; raises ValueError when kind or shape differ."""
        if not other.counts_LE.size:
            return
        if not self.counts_LE.size:
            self.top_k, self.counts_LE = other.top_k, np.zeros_like(other.counts_LE)
        if (self.kind, self.top_k, self.counts_LE.shape) != (other.kind, other.top_k, other.counts_LE.shape):
            raise ValueError(
                f"traffic of {other.kind.name}, top {other.top_k}, {other.counts_LE.shape} does not add to "
                f"{self.kind.name}, top {self.top_k}, {self.counts_LE.shape}"
            )
        self.counts_LE = self.counts_LE + other.counts_LE
        self.gate_entropy_sum_bits += other.gate_entropy_sum_bits

    def load_LE(self) -> NDArray[np.float64]:  # noqa: N802 (axis suffix)
        """Return the share of slots per expert, rows summing to 1."""
        return self.counts_LE / np.maximum(self.counts_LE.sum(-1, keepdims=True), 1)

    def summary(self) -> TrafficSummary:
        """Return the figures of the authors' reply to reviewers."""
        slots = self.counts_LE.shape[0] * self.tokens
        return TrafficSummary(
            entropy_bits=float(np.mean(_entropy_bits(self.load_LE()))),
            top_ratio=float(np.mean(_top_ratio(self.counts_LE))),
            std_tokens=float(np.mean(self.counts_LE.std(-1))),
            gate_entropy_bits=self.gate_entropy_sum_bits / slots if slots else 0.0,
        )

    def stats(self, *, stamp_s: float, reference_LE: NDArray[np.floating] | None = None) -> RouterStats:
        """Return the contract's form; `reference_LE` is a load to measure drift against."""
        load_LE = self.load_LE()
        drift = np.zeros(0) if reference_LE is None else 0.5 * np.abs(load_LE - reference_LE).sum(-1)
        return RouterStats(
            stamp_s=stamp_s,
            kind=self.kind,
            top_k=self.top_k,
            tokens=self.tokens,
            load=load_LE.astype(np.float32),
            entropy_bits=_entropy_bits(load_LE).astype(np.float32),
            top_ratio=_top_ratio(self.counts_LE).astype(np.float32),
            drift=drift.astype(np.float32),
        )

    def table(self) -> str:
        """Return the slots per layer and expert as text, a row per layer, as in the authors' Table 1."""
        width = max(6, len(str(self.counts_LE.max(initial=0))) + 1)
        head = "Layer\\Expert" + "".join(f"{number:>{width}}" for number in range(self.counts_LE.shape[1]))
        rows = [
            f"{layer:>12}" + "".join(f"{count:>{width}}" for count in row) for layer, row in enumerate(self.counts_LE)
        ]
        return "\n".join([head, *rows])


def traffic(trace: RoutingTrace, *, kind: InputKind) -> ExpertTraffic:
    """Return the traffic of one trace; empty when the model is dense."""
    routing = token_routing(trace)
    if routing is None or trace.config is None:
        return ExpertTraffic(kind=kind)
    experts = trace.config.experts if trace.config.routed else 2
    layers = len(routing.chosen_LNK)
    flat_LS = routing.chosen_LNK.reshape(layers, -1)
    counts_LE = np.stack([np.bincount(row, minlength=experts) for row in flat_LS])
    entropy = float(_entropy_bits(routing.gates_LNK.astype(np.float64)).sum())
    return ExpertTraffic(
        kind=kind, top_k=routing.chosen_LNK.shape[2], counts_LE=counts_LE, gate_entropy_sum_bits=entropy
    )


def router_stats(
    trace: RoutingTrace, *, kind: InputKind, stamp_s: float, reference_LE: NDArray[np.floating] | None = None
) -> RouterStats | None:
    """Return the statistics of one trace, or None when the model has no router and no static experts."""
    counted = traffic(trace, kind=kind)
    return counted.stats(stamp_s=stamp_s, reference_LE=reference_LE) if counted.counts_LE.size else None


def token_routing(trace: RoutingTrace) -> TokenRouting | None:
    """Return each token's experts and gates per layer, or None when nothing was routed."""
    if not trace.layers:
        return None
    chosen, gates = [], []
    for index in sorted(trace.layers):
        records = trace.layers[index]
        keep = [slice(None) if record.valid_N is None else record.valid_N for record in records]
        pairs = list(zip(records, keep, strict=True))
        chosen.append(torch.cat([record.chosen_NK[valid] for record, valid in pairs]).cpu().numpy())
        gates.append(torch.cat([record.gates_NK[valid] for record, valid in pairs]).detach().float().cpu().numpy())
    return TokenRouting(chosen_LNK=np.stack(chosen), gates_LNK=np.stack(gates))


def _entropy_bits(share: NDArray[np.float64]) -> NDArray[np.float64]:
    safe = np.where(share > 0, share, 1.0)
    return -(share * np.log2(safe)).sum(-1)


def _top_ratio(counts_LE: NDArray[np.int64]) -> NDArray[np.float64]:
    idlest = counts_LE.min(-1).astype(np.float64)
    return np.divide(counts_LE.max(-1), idlest, out=np.full(len(idlest), np.inf), where=idlest > 0)
