# SPDX-License-Identifier: Apache-2.0
"""ChatVLA-1's static mixture: the understanding path is the base model's, bit for bit, whatever control learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from chatvla_policy.checkpoint import CheckpointError, save_checkpoint
from chatvla_policy.model.chatvla2 import ChatVLA2, Stage
from chatvla_policy.model.moe import MoeConfig, MoeKind, Path, Routing, routing
from chatvla_policy.model.upcycle import upcycle_backbone
from chatvla_policy.processing.images import ImagePreparer
from chatvla_policy.processing.prompts import question_prompt
from chatvla_policy.systems import load_policy
from chatvla_policy.systems.chatvla1 import ChatVLA1Policy
from chatvla_policy.systems.dense_film import DenseFilmPolicy
from chatvla_policy.systems.settings import ObservationError

STATIC = MoeConfig(kind=MoeKind.STATIC)


def logits(model: ChatVLA2, world, codec, path: Path) -> torch.Tensor:
    """Return the logits of a question about an image, through `path`."""
    images = ImagePreparer(model.config.images)(world.questions[0].images)
    ids = torch.tensor([question_prompt(codec, "How many cards?", image_tokens=images.tokens).ids])
    with torch.no_grad(), routing(Routing(path=path)):
        return model.backbone(
            input_ids=ids,
            mm_token_type_ids=(ids == codec.image_id).int(),
            pixel_values=images.pixel_values_PX,
            image_grid_thw=images.grid_thw_N3,
        ).logits


@pytest.fixture
def dense_and_static(small_model, small_config) -> tuple[ChatVLA2, ChatVLA2]:
    dense = small_model(moe=MoeConfig(kind=MoeKind.DENSE), conditioning="film")
    config = replace(small_config(moe=STATIC, conditioning="film"), system="chatvla1")
    model = ChatVLA2(config, upcycle_backbone(dense.backbone, STATIC))
    model.expert.load_state_dict(dense.expert.state_dict())
    return dense, model


def test_understanding_path_is_the_base_model_before_and_after_robot_only_training(dense_and_static, world, codec):
    dense, model = dense_and_static
    base = logits(dense.eval(), world, codec, Path.UNDERSTANDING)
    assert torch.equal(logits(model.eval(), world, codec, Path.UNDERSTANDING), base)
    trained = model.set_stage(Stage.CONTROL)
    assert any("static_experts.1." in name for name in trained)
    assert not any(name.startswith("backbone.") and "static_experts.1." not in name for name in trained)
    optimiser = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=1e-2)
    batch = world.batcher(model.config)(world.samples)
    model.train()
    for step in range(3):
        optimiser.zero_grad()
        model(batch, generator=torch.Generator().manual_seed(step)).total().backward()
        optimiser.step()
    assert torch.equal(logits(model.eval(), world, codec, Path.UNDERSTANDING), base)
    assert not torch.allclose(logits(model, world, codec, Path.CONTROL), base, atol=1e-2)


def test_checkpoint_names_its_system_and_a_wrong_mixture_is_refused(dense_and_static, world, tmp_path):
    dense, model = dense_and_static
    save_checkpoint(tmp_path / "one", world.checkpoint(model))
    policy = load_policy(tmp_path / "one")
    assert isinstance(policy, ChatVLA1Policy)
    assert policy.system == "chatvla1"
    with pytest.raises(CheckpointError, match="static mixture of experts, this one is dense"):
        ChatVLA1Policy(world.checkpoint(dense))
    with pytest.raises(CheckpointError, match="this one is static"):
        DenseFilmPolicy(world.checkpoint(model))


def test_several_views_are_seen_in_the_checkpoints_order(dense_and_static, world):
    _, model = dense_and_static
    with torch.no_grad():  # A random model hardly looks at its pictures; wider weights make it.
        for name, weight in model.backbone.named_parameters():
            if weight.dim() == 2 and "visual" not in name:
                weight.mul_(6.0)
    checkpoint = world.checkpoint(model)
    views = replace(checkpoint.robots[0], cameras=("left", "right", "wrist"))
    policy = ChatVLA1Policy(replace(checkpoint, robots=(views,)))
    single = world.observation()
    chunks = []
    for order in ((0, 1, 2), (2, 1, 0)):
        images = {name: world.samples[k].images[0] for name, k in zip(views.cameras, order, strict=True)}
        policy.reset(0)
        seen = replace(single, images=images, image_stamps_s=dict.fromkeys(images, 1.0))
        chunks.append(policy.infer(seen, forced_reasoning="Pick.").chunk.actions)
    assert not np.array_equal(*chunks)
    with pytest.raises(ObservationError, match="no image of view 'left'"):
        policy.infer(single)
