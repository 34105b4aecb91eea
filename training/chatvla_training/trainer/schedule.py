# SPDX-License-Identifier: Apache-2.0
"""Say the learning rate of every step: a pure function, so that nothing of it needs saving.

  warm-up   lr s / w                                            s <= w
  constant  lr
  cosine    end + (lr - end) (1 + cos(pi p)) / 2                p = (s - w) / (n - w)
  linear    end + (lr - end) (1 - p)
  tail      lr, then linear to end over the last half of n
with s the step counted from 1, w the warm-up steps, n all steps.
"""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["Schedule", "learning_rate"]

Schedule = Literal["cosine", "constant", "linear", "tail"]


def learning_rate(step: int, *, schedule: Schedule, lr: float, lr_end: float, warmup: int, steps: int) -> float:
    """Return the learning rate of `step`, counted from 1."""
    if warmup and step <= warmup:
        return lr * step / warmup
    if schedule == "cosine":
        share = min(1.0, (step - warmup) / max(1, steps - warmup))
        return lr_end + (lr - lr_end) * (1 + math.cos(math.pi * share)) / 2
    if schedule == "linear":
        share = min(1.0, (step - warmup) / max(1, steps - warmup))
        return lr_end + (lr - lr_end) * (1 - share)
    if schedule == "tail":
        share = min(1.0, max(0.0, 2 * step / steps - 1))
        return lr + (lr_end - lr) * share
    return lr
