# SPDX-License-Identifier: Apache-2.0
"""Make a checkpoint with random weights that moves a robot gently about its home pose: for tests and benchmarks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from chatvla_control.contracts import Observation
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.checkpoint import Checkpoint, RobotSetup, save_checkpoint
from chatvla_policy.model.action import Embodiment
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_policy.model.config import chatvla2_config
from chatvla_policy.model.moe import MoeConfig
from chatvla_policy.model.tiny import make_tiny_tokenizer
from chatvla_policy.processing.statistics import RobotStatistics, Statistics
from chatvla_policy.processing.tokens import TextCodec
from chatvla_policy.systems.chatvla2 import ChatVLA2Policy

__all__ = ["save_untrained"]

_REACH = 0.001
"""Share of each joint's range that the random motion covers."""


def save_untrained(
    folder: Path | str,
    *,
    robot: str,
    camera: str = "top",
    size: str = "micro",
    horizon: int = 50,
    max_tokens: int = 48,
) -> str:
    """Save a random checkpoint with a golden input into `folder`; return the SHA-256 of its weights.

    It is for `robot` and one camera. Its weights are drawn from a fixed seed. `max_tokens` is the longest reasoning
    that it writes.
    """
    spec = robot_spec(robot)
    codec = TextCodec(Tokenizer.from_str(make_tiny_tokenizer().backend_tokenizer.to_str()))
    embodiment = Embodiment(name=robot, state_width=spec.width, action_width=spec.width, horizon=horizon)
    fields = {"depth": 4, "width": 64, "heads": 4, "queries": 4} if size == "micro" else {}
    config = chatvla2_config(size, embodiments=(embodiment,), codec=codec, moe=MoeConfig(experts=4, top_k=2), **fields)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ChatVLA2(replace(config, max_reasoning_tokens=max_tokens)).eval()
    home, reach = np.array(spec.home), _REACH * (spec.upper - spec.lower)
    rows = np.stack([np.maximum(home - reach, spec.lower), np.minimum(home + reach, spec.upper)])
    statistics = Statistics.from_samples(spec.joint_names, rows, "min_max")
    setup = RobotSetup(spec=spec, cameras=(camera,), statistics=RobotStatistics(state=statistics, action=statistics))
    checkpoint = Checkpoint(model=model, codec=codec, robots=(setup,), provenance={"trained": "no, random weights"})
    golden = ChatVLA2Policy(checkpoint).make_golden(
        Observation(
            images={camera: np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)},
            image_stamps_s={camera: 0.0},
            joint_positions=home,
            instruction="Pick the card with the correct answer.",
            stamp_s=0.0,
        ),
        "I should pick the left card.",
    )
    return save_checkpoint(folder, replace(checkpoint, golden=golden))
