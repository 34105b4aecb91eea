# SPDX-License-Identifier: Apache-2.0
"""The recipe of a run that takes a second."""

from pathlib import Path

from chatvla_training.recipe import Recipe


def small_recipe(folder: Path, llava: Path, **changes):
    values = {
        "name": "small",
        "summary": "",
        "stage": "stage1",
        "size": "micro",
        "data": str(folder),
        "image_text": f"qa={llava}",
        "moe": "dynamic",
        "experts": 2,
        "top_k": 1,
        "relative_actions": True,
        "horizon": 8,
        "steps": 6,
        "batch": 8,
        "micro_batch": 4,
        "lr": 1e-3,
        "lr_end": 1e-4,
        "warmup": 2,
        "ema": 0.9,
        "precision": "fp32",
        "workers": 0,
        "validate_every": 3,
        "validation_batches": 1,
        "checkpoint_every": 2,
        "storage": "as_is",
    }
    return Recipe(**(values | changes))
