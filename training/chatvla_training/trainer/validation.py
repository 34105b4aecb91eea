# SPDX-License-Identifier: Apache-2.0
"""Measure a model on held-out data: losses, and the error of whole sampled chunks (open loop)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from chatvla_training.trainer.task import TrainingTask

__all__ = ["validate"]


@torch.no_grad()
def validate(
    task: TrainingTask, module: nn.Module, batches: Iterable[Any], *, seed: int, device: torch.device
) -> dict[str, float]:
    """Return means over `batches`: language, action, loss, and action_error_<robot> [rad and m, mean over joints].

    Random numbers depend on `seed` and the batch's place alone, so that two validations compare. The module's mode
    comes back as it was, and so do torch's random numbers.
    """
    was_training = module.training
    module.eval()
    sums: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, int] = defaultdict(int)
    weight = 1.0
    try:
        for number, loaded in enumerate(batches):
            batch = task.place(loaded.batch, device)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            terms = module(batch, generator=generator)
            weight = terms.action_weight
            sums["language"] += float(terms.language_sum)
            counts["language"] += terms.language_tokens
            sums["action"] += float(terms.action_sum)
            counts["action"] += terms.action_steps
            for robot, (total, count) in task.action_error(batch, generator).items():
                sums[f"action_error_{robot}"] += total
                counts[f"action_error_{robot}"] += count
    finally:
        module.train(was_training)
    means = {name: sums[name] / counts[name] for name in sums if counts[name]}
    means["loss"] = means.get("language", 0.0) + weight * means.get("action", 0.0)
    return means
