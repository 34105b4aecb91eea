# SPDX-License-Identifier: Apache-2.0
"""Optional losses that keep a router's experts in use and its logits small.

Legend: N flat tokens, E experts, K chosen. Padding (valid_N false) never counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["balance_loss", "z_loss"]


def balance_loss(logits_NE: Tensor, chosen_NK: Tensor, valid_N: Tensor | None = None) -> Tensor:
    """Return E * sum_e f_e P_e, a scalar: 1 when experts are used alike, E when one takes every token.

    f_e is the share of routed slots that chose expert e, P_e the mean gate probability over all experts.
    Only P carries a gradient. Source: Fedus et al. 2022 (Switch), equation 4, with f over the K choices.
    """
    experts = logits_NE.shape[1]
    probability_NE = logits_NE.float().softmax(-1)
    used_NE = torch.zeros_like(probability_NE).scatter_(1, chosen_NK, 1.0 / chosen_NK.shape[1])
    return experts * (_mean(used_NE, valid_N) * _mean(probability_NE, valid_N)).sum()


def z_loss(logits_NE: Tensor, valid_N: Tensor | None = None) -> Tensor:
    """Return the mean of logsumexp(logits) squared, a scalar. Source: Zoph et al. 2022 (ST-MoE), equation 5."""
    return _mean(logits_NE.float().logsumexp(-1).square(), valid_N)


def _mean(values: Tensor, valid_N: Tensor | None) -> Tensor:
    if valid_N is None:
        return values.mean(0)
    weight = valid_N.to(values.dtype).reshape(-1, *[1] * (values.dim() - 1))
    return (values * weight).sum(0) / weight.sum().clamp_min(1.0)
