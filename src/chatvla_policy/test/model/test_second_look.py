# SPDX-License-Identifier: Apache-2.0
"""The second look at a doubted text, with the shipped policy's language model."""

from __future__ import annotations

import pytest
import torch

from chatvla_policy.checkpoint import Checkpoint, load_checkpoint
from chatvla_policy.model.reasoner import Reasoner, Sampling, Thought
from chatvla_policy.processing.images import ImagePreparer
from chatvla_policy.processing.prompts import robot_prompt
from chatvla_policy.systems import SHIPPED


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(SHIPPED / "tiny", dtype=torch.float32)


@pytest.fixture(scope="module")
def think(checkpoint: Checkpoint):
    """Return a maker of thoughts about the golden input's picture, from two readings of it."""
    prepare, golden = ImagePreparer(checkpoint.model.config.images), checkpoint.golden
    assert golden is not None
    images = prepare(golden.images)
    prompt = robot_prompt(checkpoint.codec, golden.instruction, image_tokens=images.tokens)
    reasoner = Reasoner(checkpoint.model.eval(), checkpoint.codec)

    def make(**options: object) -> Thought:
        return reasoner.think(prompt, images, variants=prepare.variants(golden.images, 1), **options)

    return make


def test_doubted_text_is_exchanged_at_a_figure_and_acts_as_if_forced(think, checkpoint: Checkpoint) -> None:
    first = think()
    asked: list[str] = []

    def doubt(text: str) -> bool:
        asked.append(text)
        return text == first.text

    second = think(doubt=doubt)
    assert asked[0] == first.text
    assert second.text == asked[-1] != first.text
    ids = [checkpoint.codec.reasoning(thought.text) for thought in (first, second)]
    place = next(k for k, (one, other) in enumerate(zip(*ids, strict=False)) if one != other)
    for text in (checkpoint.codec.text([tokens[place]]).strip() for tokens in ids):
        assert text.isdigit() or text in "+-x"
    forced = think(text=second.text)
    torch.testing.assert_close(second.reasoning.hidden_BLV, forced.reasoning.hidden_BLV, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(second.tokens_1SV, forced.tokens_1SV, atol=1e-3, rtol=1e-3)


def test_text_stays_where_every_other_is_doubted_too(think) -> None:
    first, asked = think(), []
    stayed = think(doubt=lambda text: asked.append(text) is None)
    assert 2 <= len(asked) <= 9
    assert stayed.text == first.text
    torch.testing.assert_close(stayed.tokens_1SV, first.tokens_1SV, atol=1e-3, rtol=1e-3)


def test_sampled_texts_are_not_doubted(think) -> None:
    asked: list[str] = []
    think(
        doubt=lambda text: asked.append(text) is None,
        sampling=Sampling(temperature=0.5),
        generator=torch.Generator().manual_seed(0),
    )
    assert not asked
