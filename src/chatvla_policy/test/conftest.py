# SPDX-License-Identifier: Apache-2.0
"""Small whole models, their processing and their samples, for the tests of the policy package.

CHATVLA_MODEL_SIZE and CHATVLA_MODEL_LAYERS choose the language model, as in model/conftest.py; the action expert stays
small.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from chatvla_control.contracts import Observation
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.checkpoint import Checkpoint, RobotSetup
from chatvla_policy.model.action import Embodiment
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_policy.model.config import ChatVLA2Config, chatvla2_config
from chatvla_policy.model.moe import MoeConfig
from chatvla_policy.model.tiny import make_tiny_tokenizer
from chatvla_policy.processing.images import ImageConfig, ImagePreparer
from chatvla_policy.processing.samples import Batcher, ImageTextSample, RobotSample
from chatvla_policy.processing.statistics import RobotStatistics, Statistics
from chatvla_policy.processing.tokens import TextCodec

SIZE = os.environ.get("CHATVLA_MODEL_SIZE", "micro")
LAYERS = int(os.environ["CHATVLA_MODEL_LAYERS"]) if "CHATVLA_MODEL_LAYERS" in os.environ else None
HORIZON = 8
ROBOT = "arx_r5"


@pytest.fixture(scope="session")
def codec() -> TextCodec:
    return TextCodec(Tokenizer.from_str(make_tiny_tokenizer().backend_tokenizer.to_str()))


@pytest.fixture(scope="session")
def small_config(codec: TextCodec) -> Callable[..., ChatVLA2Config]:
    """Return a maker of configs small enough to train in a test; keywords set fields of ActionConfig."""

    def make(*, moe: MoeConfig | None = None, **action: object) -> ChatVLA2Config:
        embodiment = Embodiment(name=ROBOT, state_width=14, action_width=14, horizon=HORIZON)
        fields = {"depth": 4, "width": 64, "heads": 4, "queries": 4, **action}
        moe = moe or MoeConfig(experts=4, top_k=2)
        config = chatvla2_config(
            SIZE, embodiments=(embodiment,), codec=codec, moe=moe, action="tiny", layers=LAYERS, **fields
        )
        return replace(config, images=ImageConfig(width=112, height=84), max_reasoning_tokens=64)

    return make


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Return the module with nothing left at its zero start, so that every path carries a signal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.abs().any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def small_model(small_config: Callable[..., ChatVLA2Config]) -> Callable[..., ChatVLA2]:
    """Return a maker of small models with fixed random weights."""

    def make(**fields: object) -> ChatVLA2:
        torch.manual_seed(0)
        model = ChatVLA2(small_config(**fields))
        randomised(model.expert)
        return model

    return make


@pytest.fixture(scope="session")
def world(codec: TextCodec) -> SimpleNamespace:
    """Return samples, statistics and observations that belong together."""
    rng = np.random.default_rng(0)
    spec = robot_spec(ROBOT)
    # Coarse coloured fields: different enough for a tiny vision tower, noisy enough to be no constants.
    fields = rng.integers(0, 215, (8, 3, 4, 3)).repeat(80, axis=1).repeat(80, axis=2)
    images = list((fields + rng.integers(0, 40, (8, 240, 320, 3))).astype(np.uint8))
    states = rng.uniform(0.1, 0.5, (8, 14)) * (spec.upper - spec.lower) + spec.lower
    # Slow straight motions, so that limits never bind.
    ends = states + rng.uniform(-0.01, 0.01, (8, 14))
    chunks = np.stack([np.linspace(a, b, HORIZON) for a, b in zip(states, ends, strict=True)])
    statistics = RobotStatistics(
        state=Statistics.from_samples(spec.joint_names, states, "min_max"),
        action=Statistics.from_samples(spec.joint_names, chunks.reshape(-1, 14), "min_max"),
    )
    texts = [
        f"On the whiteboard is {a}+{b}. {a}+{b}={a + b}. I should pick left card."
        for a, b in rng.integers(0, 9, (2, 8)).T
    ]
    samples = [
        RobotSample(
            robot=ROBOT,
            images=(images[index],),
            instruction="Pick the card with the correct answer.",
            reasoning=texts[index],
            state=states[index],
            actions=chunks[index],
        )
        for index in range(8)
    ]
    questions = [
        ImageTextSample(images=(images[0],), question="What is on the table?", answer="Three cards."),
        ImageTextSample(images=(images[1], images[2]), question="How many cards?", answer="2"),
        ImageTextSample(images=(), question="What is 2+2?", answer="4"),
    ]

    def observation(index: int = 0, *, stamp_s: float = 1.0) -> Observation:
        sample = samples[index]
        return Observation(
            images={"top": sample.images[0]},
            image_stamps_s={"top": stamp_s},
            joint_positions=sample.state,
            instruction=sample.instruction,
            stamp_s=stamp_s,
        )

    def batcher(config: ChatVLA2Config) -> Batcher:
        return Batcher(
            codec=codec,
            images=ImagePreparer(config.images),
            statistics={ROBOT: statistics},
            queries=config.action.queries,
            horizons={ROBOT: HORIZON},
        )

    def checkpoint(model: ChatVLA2, **fields: object) -> Checkpoint:
        setup = RobotSetup(spec=spec, cameras=("top",), statistics=statistics)
        return Checkpoint(model=model, codec=codec, robots=(setup,), provenance={"commit": "test"}, **fields)

    return SimpleNamespace(
        spec=spec,
        statistics=statistics,
        samples=samples,
        questions=questions,
        observation=observation,
        batcher=batcher,
        checkpoint=checkpoint,
    )
