# SPDX-License-Identifier: Apache-2.0
"""Move the measured joints of a training sample, and let its targets lead back.

Where an arm is on a demonstration's way tells where it is going, so a policy learns to trust it and to look at nothing
else; its first mistake then stays. A sample with displaced joints s + d and targets

  a_k + d max(0, 1 - k / K)

has the same goal from a place that says nothing about it (the idea of state augmentation in Ke et al. 2021, "Grasping
with Chopsticks", and of DART). The pictures stay as they are.
Shapes: T chunk steps; D joints. Units: rad, m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Displacement"]

BACK_S = 0.3
"""Time in which the targets lead back."""
UNTOUCHED_SHARE = 0.2
"""Share of samples that stay as recorded."""


@dataclass(frozen=True, kw_only=True)
class Displacement:
    """How far the joints of training samples are moved."""

    sigma_rad: float
    """Standard deviation per rotary joint."""
    rotary: tuple[bool, ...]
    """Which joints turn; others stay."""
    step_period_s: float

    def __call__(
        self, state: NDArray[np.float32], actions: NDArray[np.float32], draw: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return joints (D,) and targets (T, D), moved as `draw` says."""
        rng = np.random.default_rng([draw, 0xD15])
        if rng.random() < UNTOUCHED_SHARE:
            return state, actions
        moved = rng.normal(0.0, self.sigma_rad, len(state)) * np.array(self.rotary)
        left = np.maximum(0.0, 1.0 - np.arange(len(actions)) * self.step_period_s / BACK_S)
        return (state + moved).astype(np.float32), (actions + left[:, None] * moved).astype(np.float32)
