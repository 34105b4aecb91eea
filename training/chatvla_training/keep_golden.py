# SPDX-License-Identifier: Apache-2.0
"""Store with a finished checkpoint one input and the chunk it must give: the policy node checks it on activation."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from chatvla_control.contracts import Observation
from chatvla_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from chatvla_policy.checkpoint.weights import Storage
from chatvla_policy.systems import load_policy
from chatvla_training.data.episodes import EpisodeDataset
from chatvla_training.data.samples import first_readable

__all__ = ["save_with_golden"]

SHORTER_TOLERANCE = 0.06
"""Largest difference allowed of weights in a type shorter than float32, normalised units. A CPU makes the chunk in
float32; a GPU runs them as they are stored, which was measured to give chunks 0.0055 to 0.025 away."""


def save_with_golden(folder: Path, checkpoint: Checkpoint, data: Sequence[EpisodeDataset], *, storage: Storage) -> None:
    """Write `checkpoint` and a golden input, the first frame of `data` that can be read, as `folder`, at once.

    The chunk is what the stored weights give, so it is made from the checkpoint written aside. A system without such
    inputs keeps none. Raises SourceError when no frame can be read.
    """
    sample = first_readable(*data)
    aside = folder.with_name(f".{folder.name}.bare")
    save_checkpoint(aside, checkpoint, storage=storage)
    observation = Observation(
        images=sample.images,
        image_stamps_s=dict.fromkeys(sample.images, 0.0),
        joint_positions=sample.state.astype(np.float64),
        instruction=sample.instruction,
        stamp_s=0.0,
    )
    stored = load_checkpoint(aside)
    shorter = any(weight.dtype.itemsize < torch.float32.itemsize for weight in stored.model.parameters())
    allowed = {"tolerance": SHORTER_TOLERANCE} if shorter else {}
    make = getattr(load_policy(aside, robot=sample.robot), "make_golden", None)
    golden = None if make is None else make(observation, sample.reasoning, **allowed)
    save_checkpoint(folder, replace(stored, golden=golden), storage="as_is")
    shutil.rmtree(aside)
