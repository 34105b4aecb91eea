# SPDX-License-Identifier: Apache-2.0
"""Say how a chunk is corrupted for training and cleaned at inference: diffusion (DDPM, DDIM) or flow matching.

Symbols: x0 clean chunk, e noise, x_t noisy chunk, a_t cumulative product of 1 - beta (alpha bar).
  diffusion  x_t = sqrt(a_t) x0 + sqrt(1 - a_t) e, the network predicts e; squared-cosine betas
             (Nichol and Dhariwal 2021), sampled by DDIM with eta 0 (Song et al. 2021)
  flow       x_s = s x0 + (1 - s) e, the network predicts x0 - e; Euler steps from s = 0 to 1 (Lipman et al. 2023)
  flow_clean the same flow, the network predicts x0: a chunk is smooth and needs few numbers, noise needs all of them,
             so a narrow network can say the one and not the other (Li and He 2025, "Back to Basics"); trained on
             absolute errors, which keep small ones in sight where an arm is about to grasp (ACT, Zhao et al. 2023)
Chunks are normalised and float32. Tensors: B batch, T chunk steps, A action dims; K denoising steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from chatvla_policy.model.action.config import ActionConfig

__all__ = [
    "OBJECTIVES",
    "CleanFlow",
    "Diffusion",
    "FlowMatching",
    "Sampling",
    "make_objective",
    "squared_cosine_alpha_bars",
]


class Sampling(Protocol):
    """The denoising steps of one sampling run, noisiest first."""

    times_K: Tensor
    """What the timestep embedding reads at each step, shape (K,)."""

    def advance(self, step: int, noisy_BTA: Tensor, predicted_BTA: Tensor) -> Tensor:
        """Return the chunk after denoising step `step`."""
        ...

    def noised(self, step: int, clean: Tensor, noise: Tensor) -> Tensor:
        """Return `clean` as noisy as the input of denoising step `step`."""
        ...


def squared_cosine_alpha_bars(train_steps: int, *, largest_beta: float = 0.999) -> Tensor:
    """Return alpha bar of every noise level, shape (train_steps,), float32, for the squared-cosine betas."""

    def level(fraction: float) -> float:
        return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [
        min(1 - level((step + 1) / train_steps) / level(step / train_steps), largest_beta)
        for step in range(train_steps)
    ]
    # On the CPU whatever the default device: a model built without storage needs these values too.
    return torch.cumprod(1.0 - torch.tensor(betas, dtype=torch.float32, device="cpu"), dim=0)


class Diffusion:
    """Predict the noise; 100 training levels and any number of DDIM steps from the same weights."""

    def __init__(self, config: ActionConfig) -> None:
        """Take the number of levels and whether to clip from `config`."""
        self.train_steps = config.train_steps
        self.clip = config.clip_sample
        self.alpha_bars = squared_cosine_alpha_bars(config.train_steps)

    def corrupt(self, clean_BTA: Tensor, noise_BTA: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the noisy chunk, the regression target and the time, for levels drawn by `uniform_B` in [0, 1)."""
        level_B = (uniform_B * self.train_steps).long().clamp(max=self.train_steps - 1)
        alpha_bar_B11 = self.alpha_bars.to(clean_BTA.device)[level_B][:, None, None]
        noisy_BTA = alpha_bar_B11.sqrt() * clean_BTA + (1 - alpha_bar_B11).sqrt() * noise_BTA
        return noisy_BTA, noise_BTA, level_B.float()

    def error(self, difference_BTA: Tensor) -> Tensor:
        """Return what training makes small, element by element."""
        return difference_BTA.square()

    def sampling(self, steps: int, device: torch.device) -> Sampling:
        """Return a DDIM run of `steps` levels spread from high to low (spacing "leading", as in the public code)."""
        return _Ddim(self.alpha_bars, steps, clip=self.clip, device=device)


class _Ddim:
    """DDIM with eta 0: x_s = sqrt(a_s) x0 + sqrt(1 - a_s) e, the last step ends at a = 1."""

    def __init__(self, alpha_bars: Tensor, steps: int, *, clip: bool, device: torch.device) -> None:
        if not 1 <= steps <= len(alpha_bars):
            raise ValueError(f"{steps} denoising steps asked, must lie in 1..{len(alpha_bars)} (training levels)")
        stride = len(alpha_bars) // steps
        levels = [stride * step for step in reversed(range(steps))]
        self._clip = clip
        self._now = [float(alpha_bars[level]) for level in levels]
        self._next = [float(alpha_bars[level - stride]) if level >= stride else 1.0 for level in levels]
        self.times_K = torch.tensor(levels, dtype=torch.float32, device=device)

    def advance(self, step: int, noisy_BTA: Tensor, predicted_BTA: Tensor) -> Tensor:
        """Return the chunk one DDIM step cleaner."""
        now, then = self._now[step], self._next[step]
        clean_BTA = (noisy_BTA - math.sqrt(1 - now) * predicted_BTA) / math.sqrt(now)
        if self._clip:
            clean_BTA = clean_BTA.clamp(-1.0, 1.0)
        return math.sqrt(then) * clean_BTA + math.sqrt(1 - then) * predicted_BTA

    def noised(self, step: int, clean: Tensor, noise: Tensor) -> Tensor:
        """Return `clean` at the noise level of step `step`."""
        return math.sqrt(self._now[step]) * clean + math.sqrt(1 - self._now[step]) * noise


class FlowMatching:
    """Predict the velocity from noise to chunk; Euler steps. An alternative to the paper's diffusion."""

    def __init__(self, config: ActionConfig) -> None:
        """Take the time scale and whether to clip from `config`."""
        self.train_steps = config.train_steps
        self.clip = config.clip_sample

    def corrupt(self, clean_BTA: Tensor, noise_BTA: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the noisy chunk, the velocity and the time, for s = `uniform_B` in [0, 1)."""
        s_B11 = uniform_B[:, None, None]
        noisy_BTA = s_B11 * clean_BTA + (1 - s_B11) * noise_BTA
        return noisy_BTA, clean_BTA - noise_BTA, (1 - uniform_B) * self.train_steps

    def error(self, difference_BTA: Tensor) -> Tensor:
        """Return what training makes small, element by element."""
        return difference_BTA.square()

    def sampling(self, steps: int, device: torch.device) -> Sampling:
        """Return an Euler run of `steps` equal steps."""
        return _Euler(steps, self.train_steps, clip=self.clip, device=device)


class CleanFlow(FlowMatching):
    """Predict the clean chunk; the velocity follows from it."""

    def corrupt(self, clean_BTA: Tensor, noise_BTA: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the noisy chunk, the clean chunk and the time, for s = `uniform_B` in [0, 1)."""
        noisy_BTA, _, time_B = super().corrupt(clean_BTA, noise_BTA, uniform_B)
        return noisy_BTA, clean_BTA, time_B

    def error(self, difference_BTA: Tensor) -> Tensor:
        """Return what training makes small, element by element."""
        return difference_BTA.abs()

    def sampling(self, steps: int, device: torch.device) -> Sampling:
        """Return an Euler run of `steps` equal steps."""
        return _CleanEuler(steps, self.train_steps, clip=self.clip, device=device)


class _Euler:
    """Euler steps of the flow: x += (x0 - e) / K."""

    def __init__(self, steps: int, train_steps: int, *, clip: bool, device: torch.device) -> None:
        if steps < 1:
            raise ValueError(f"{steps} denoising steps asked, must be at least 1")
        self._steps, self._clip = steps, clip
        self.times_K = (1 - torch.arange(steps, dtype=torch.float32, device=device) / steps) * train_steps

    def advance(self, step: int, noisy_BTA: Tensor, predicted_BTA: Tensor) -> Tensor:
        """Return the chunk one Euler step cleaner."""
        next_BTA = noisy_BTA + predicted_BTA / self._steps
        last = step == self._steps - 1
        return next_BTA.clamp(-1.0, 1.0) if last and self._clip else next_BTA

    def noised(self, step: int, clean: Tensor, noise: Tensor) -> Tensor:
        """Return `clean` mixed with noise as at the start of step `step`."""
        fraction = step / self._steps
        return fraction * clean + (1 - fraction) * noise


class _CleanEuler(_Euler):
    """Euler steps with the velocity (x0 - x_s) / (1 - s) towards the predicted chunk; the last step ends on it."""

    def advance(self, step: int, noisy_BTA: Tensor, predicted_BTA: Tensor) -> Tensor:
        """Return the chunk one Euler step cleaner."""
        left = self._steps - step
        return super().advance(step, noisy_BTA, (predicted_BTA - noisy_BTA) * (self._steps / left))


OBJECTIVES: dict[str, Callable[[ActionConfig], Diffusion | FlowMatching]] = {
    "diffusion": Diffusion,
    "flow": FlowMatching,
    "flow_clean": CleanFlow,
}
"""Objectives by the name that ActionConfig gives."""


def make_objective(config: ActionConfig) -> Diffusion | FlowMatching:
    """Return the objective that `config` names. Raises ValueError, listing those that exist."""
    if config.objective not in OBJECTIVES:
        raise ValueError(f"no objective {config.objective!r}; there are: {', '.join(OBJECTIVES)}")
    return OBJECTIVES[config.objective](config)
