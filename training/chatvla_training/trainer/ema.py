# SPDX-License-Identifier: Apache-2.0
"""Keep an exponential moving average of the trained parameters.

shadow <- d shadow + (1 - d) parameter,   d = min(decay, (1 + s) / (10 + s)) at step s
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from chatvla_training.trainer.tensors import local

__all__ = ["Ema"]


class Ema:
    """Averages of some parameters, in float32; each device keeps its own part."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, decay: float) -> None:
        """Start from the parameters as they are; `decay` 0 switches averaging off."""
        self._parameters, self.decay = dict(parameters), decay
        self.shadow: dict[str, Tensor] = {}
        if decay:
            self.shadow = {name: local(item.detach()).float().clone() for name, item in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, shadow in self.shadow.items():
            shadow.lerp_(local(self._parameters[name].detach()).float(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model while the block runs; no change when averaging is off."""
        before = {name: local(self._parameters[name].detach()).clone() for name in self.shadow}
        try:
            self.write()
            yield
        finally:
            self._write(before)

    def write(self) -> None:
        """Put the averages into the model for good; no change when averaging is off."""
        self._write(self.shadow)

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            local(self._parameters[name].detach()).copy_(value)
