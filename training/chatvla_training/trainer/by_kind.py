# SPDX-License-Identifier: Apache-2.0
"""Train ChatVLA-2 with image-text and robot samples in forwards of their own, pictures of one size together.

Rows of one kind are of like length; side by side in one batch the short ones would be padded to the longest dialogue.
The loss is the same: sums and counts add up, and the routers' losses are averaged by rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chatvla_policy.model.batch import VlaBatch
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_policy.model.loss import LossTerms
from chatvla_training.data.samples import RobotSample
from chatvla_training.trainer.task import VlaTask

__all__ = ["ByKindCollate", "ByKindTask"]

Parts = tuple[VlaBatch, ...]


class ByKindCollate:
    """Samples to one batch per kind."""

    def __init__(self, collate: Callable[[Sequence[Any]], VlaBatch]) -> None:
        self._collate = collate

    def __call__(self, samples: Sequence[Any]) -> Parts:
        """Return a batch for robot samples and one for each size of image-text pictures, whichever there are."""
        kinds: dict[tuple[bool, int], list[Any]] = {}
        for sample in samples:
            robot = isinstance(sample, RobotSample)
            pixels = 0 if robot else sum(image.shape[0] * image.shape[1] for image in sample.images)
            kinds.setdefault((robot, pixels), []).append(sample)
        return tuple(self._collate(kinds[kind]) for kind in sorted(kinds))


class _ByKind(nn.Module):
    def __init__(self, model: ChatVLA2) -> None:
        super().__init__()
        self.model = model

    def forward(self, parts: Parts, *, generator: torch.Generator | None = None) -> LossTerms:
        """Return the sums over the parts."""
        found = [self.model(part, generator=generator) for part in parts]
        rows = [len(part.ids_BT) for part in parts]
        router = sum((terms.router * count for terms, count in zip(found, rows, strict=True)), torch.zeros(()))
        return LossTerms(
            language_sum=_total([terms.language_sum for terms in found]),
            language_tokens=sum(terms.language_tokens for terms in found),
            action_sum=_total([terms.action_sum for terms in found]),
            action_steps=sum(terms.action_steps for terms in found),
            router=router / sum(rows),
            action_weight=found[0].action_weight,
        )


def _total(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum()


class ByKindTask:
    """All of ChatVLA-2, in the stage that the model is set to."""

    def __init__(self, model: ChatVLA2, half_width: Mapping[str, Tensor]) -> None:
        """As VlaTask."""
        self.module: nn.Module = _ByKind(model)
        self._whole = VlaTask(model, half_width)

    def counts(self, batch: Parts) -> tuple[int, int]:
        """Return written tokens and valid chunk steps."""
        counted = [self._whole.counts(part) for part in batch]
        return sum(tokens for tokens, _ in counted), sum(steps for _, steps in counted)

    def place(self, batch: Parts, device: torch.device) -> Parts:
        """Return the batch on `device`."""
        return tuple(self._whole.place(part, device) for part in batch)

    def action_error(self, batch: Parts, generator: torch.Generator) -> Mapping[str, tuple[float, int]]:
        """Return the error of sampled chunks, the recorded reasoning given."""
        found: dict[str, tuple[float, int]] = {}
        for part in batch:
            found |= self._whole.action_error(part, generator)
        return found
