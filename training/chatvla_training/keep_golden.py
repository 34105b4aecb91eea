# SPDX-License-Identifier: Apache-2.0
"""Store with a finished checkpoint one input and the chunk it must give: the policy node checks it on activation."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from chatvla_control.contracts import Observation
from chatvla_policy.checkpoint import load_checkpoint, save_checkpoint
from chatvla_policy.systems import load_policy
from chatvla_training.data.episodes import EpisodeDataset

__all__ = ["add_golden"]


def add_golden(folder: Path, data: EpisodeDataset) -> None:
    """Add a golden input, the first frame of `data`, to the checkpoint in `folder`; a system without one keeps none.

    The chunk is what the stored weights give, so it is made from the folder itself.
    """
    policy = load_policy(folder, robot=data.robot)
    make = getattr(policy, "make_golden", None)
    if make is None:
        return
    sample = data.sample(0, 0)
    observation = Observation(
        images=sample.images,
        image_stamps_s=dict.fromkeys(sample.images, 0.0),
        joint_positions=sample.state.astype(np.float64),
        instruction=sample.instruction,
        stamp_s=0.0,
    )
    golden = make(observation, sample.reasoning)
    aside = folder.with_name(f".{folder.name}.golden")
    shutil.rmtree(aside, ignore_errors=True)
    save_checkpoint(aside, replace(load_checkpoint(folder), golden=golden), storage="as_is")
    old = folder.with_name(f".{folder.name}.old")
    folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old)
