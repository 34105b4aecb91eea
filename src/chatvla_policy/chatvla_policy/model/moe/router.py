# SPDX-License-Identifier: Apache-2.0
"""Choose K of E experts per token by noisy top-k gating.

    H(x)_e = (W x)_e + n * softplus((V x)_e),  n ~ N(0, 1) while training, 0 otherwise
    G(x)   = softmax over the K largest H(x)_e, 0 for the others
Source: Shazeer et al. 2017, equations 3 to 5, which ChatVLA-2's authors name (OpenReview, Q2-2).
The softmax over the chosen K equals the softmax over all E, renormalised over the chosen: gates sum to 1, so a mixture
of equal experts equals one of them. With K = 1 every gate is 1 and only the losses train W.
Legend: N flat tokens, D width, E experts, K chosen.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Router"]


class Router(nn.Module):
    """A linear layer with noisy top-k gating."""

    def __init__(self, *, width: int, experts: int, top_k: int, noisy: bool, std: float) -> None:
        """Make a router; `std` is the standard deviation of W's start. V starts at 0: noise of std ln 2 everywhere."""
        super().__init__()
        self.top_k = top_k
        self.weight = nn.Parameter(torch.empty(experts, width))
        self.noise_weight = nn.Parameter(torch.empty(experts, width)) if noisy else None
        self.std = std
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw W anew and set V to 0."""
        self.weight.normal_(0.0, self.std) if self.std else self.weight.zero_()
        if self.noise_weight is not None:
            self.noise_weight.zero_()

    def forward(self, hidden_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return chosen_NK (int64), gates_NK and noise-free logits_NE (both float32)."""
        # In autocast's or the weights' shorter type near ties would be broken by rounding.
        with torch.autocast(hidden_ND.device.type, enabled=False):
            return self._chosen(hidden_ND.float())

    def _chosen(self, hidden_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits_NE = F.linear(hidden_ND, self.weight.float())
        scores_NE = logits_NE
        if self.training and self.noise_weight is not None:
            # torch's own generator: gradient checkpointing restores it for its second forward, and no other.
            noise_std_NE = F.softplus(F.linear(hidden_ND, self.noise_weight.float()))
            scores_NE = logits_NE + torch.randn_like(logits_NE) * noise_std_NE
        top_NK, chosen_NK = scores_NE.topk(self.top_k, dim=-1)
        return chosen_NK, top_NK.softmax(-1), logits_NE
