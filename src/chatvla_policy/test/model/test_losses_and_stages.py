# SPDX-License-Identifier: Apache-2.0
"""Losses mask exactly, and each stage trains what it says and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from chatvla_policy.model.batch import to_device
from chatvla_policy.model.chatvla2 import ChatVLA2, Stage
from chatvla_policy.model.loss import LossTerms, action_terms


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def gradients(model: ChatVLA2, total: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def model(small_model) -> ChatVLA2:
    # Evaluation mode: gating noise would differ between the two forwards that a test compares.
    return small_model().eval()


def test_image_text_rows_do_not_dilute_the_action_loss(model, world) -> None:
    batcher = world.batcher(model.config)
    alone = model(batcher(world.samples[:2]), generator=generator())
    mixed = model(batcher([*world.samples[:2], *world.questions]), generator=generator())
    assert mixed.action_steps == alone.action_steps
    torch.testing.assert_close(mixed.action_sum, alone.action_sum, rtol=1e-4, atol=1e-5)
    assert mixed.language_tokens > alone.language_tokens


def test_batch_without_robots_has_exactly_the_language_gradient(model, world) -> None:
    batch = world.batcher(model.config)(world.questions)
    terms = model(batch, generator=generator())
    assert terms.action_steps == 0
    assert set(terms.figures()) == {"router", "language"}
    joint = gradients(model, terms.total())
    assert not any(name.startswith(("expert.", "queries")) for name in joint)
    model.set_stage(Stage.LANGUAGE)
    language = gradients(model, model(batch).total())
    assert joint.keys() == language.keys()
    for name, gradient in joint.items():
        assert torch.isfinite(gradient).all()
        assert torch.equal(gradient, language[name]), name


def test_language_loss_equals_transformers_own(model, world) -> None:
    batch = world.batcher(model.config)(world.questions[:2])
    terms = model(batch)
    out = model.backbone(
        input_ids=batch.ids_BT,
        attention_mask=batch.valid_BT.long(),
        pixel_values=batch.pixel_values_PX,
        image_grid_thw=batch.grid_thw_N3,
        mm_token_type_ids=(batch.ids_BT == model.config.backbone.image_token).int(),
        labels=batch.ids_BT.masked_fill(~batch.text_BT, -100),
    )
    torch.testing.assert_close(terms.language_sum / terms.language_tokens, out.loss, rtol=1e-4, atol=1e-5)


def test_every_answer_of_a_dialogue_is_written(model, world, codec) -> None:
    from chatvla_policy.processing.prompts import Turn

    sample = replace(world.questions[0], earlier=(Turn(question="Where?", answer="On the left."),))
    batch = world.batcher(model.config)([sample])
    assert codec.text(batch.ids_BT[batch.text_BT].tolist()) == "On the left.Three cards."
    assert int((batch.ids_BT[batch.text_BT] == codec.end_id).sum()) == 2


def test_steps_past_the_end_of_an_episode_are_not_read(model, world) -> None:
    batcher = world.batcher(model.config)
    short = replace(world.samples[0], actions=world.samples[0].actions[:3])
    batch = batcher([short, world.samples[1]])
    rows = batch.robots[0]
    assert rows.valid_RH.sum(1).tolist() == [3, 8]
    error = torch.rand(rows.chunk_RHA.shape)
    poisoned = error.masked_fill(~rows.valid_RH[..., None], float("nan")).requires_grad_()
    total, steps = action_terms(poisoned, rows.valid_RH)
    assert steps == 11
    torch.testing.assert_close(total, error.mean(-1)[rows.valid_RH].sum())
    (gradient,) = torch.autograd.grad(total, poisoned)
    assert torch.isfinite(gradient).all()


def test_padding_of_a_batch_changes_nothing(model, world) -> None:
    batcher = world.batcher(model.config)
    alone = model(batcher([world.questions[2]]))
    padded = model(batcher([world.questions[2], world.samples[0]]), generator=generator())
    other = model(batcher([world.samples[0]]), generator=generator())
    torch.testing.assert_close(padded.language_sum, alone.language_sum + other.language_sum, rtol=1e-4, atol=1e-4)


def test_counts_of_several_batches_give_the_mean_over_all(model, world) -> None:
    batcher = world.batcher(model.config)
    parts = [model(batcher([sample]), generator=generator()) for sample in (world.samples[0], world.questions[0])]
    tokens, steps = sum(p.language_tokens for p in parts), sum(p.action_steps for p in parts)
    total = sum(p.total(language_tokens=tokens, action_steps=steps) for p in parts)
    expected = sum(p.language_sum for p in parts) / tokens + sum(p.action_sum for p in parts) / steps
    torch.testing.assert_close(total, expected)


def test_batch_that_supervises_nothing_gives_zero() -> None:
    zero = torch.zeros(())
    terms = LossTerms(
        language_sum=zero, language_tokens=0, action_sum=zero, action_steps=0, router=zero, action_weight=1.0
    )
    total = terms.total()
    total.backward()
    assert float(total.detach()) == 0.0


@pytest.mark.parametrize(
    ("stage", "trained"),
    [
        (Stage.LANGUAGE, ("backbone.",)),
        (Stage.STAGE1, ("backbone.", "expert.", "queries_QV")),
        (Stage.STAGE2, ("expert.",)),
    ],
)
def test_gradient_reaches_what_the_stage_trains_and_nothing_else(small_model, world, stage, trained) -> None:
    model = small_model()
    names = set(model.set_stage(stage))
    assert names == {name for name, _ in model.named_parameters() if name.startswith(trained)}
    model.train()
    batch = world.batcher(model.config)([*world.samples, *world.questions])
    reached = {
        name
        for name, gradient in gradients(model, model(batch, generator=generator()).total()).items()
        if gradient.any()
    }
    assert reached <= names
    # A row that never occurs (an expert without a token) may stay without gradient; nothing else may.
    unreached = {name for name in names - reached if "experts" not in name and "noise" not in name}
    assert not unreached


def test_frozen_backbone_gives_the_same_states_in_training(small_model, world) -> None:
    model = small_model()
    model.set_stage(Stage.STAGE2)
    batch = world.batcher(model.config)(world.samples[:2])
    quiet, _ = model.eval().hidden_states(batch)
    trained, _ = model.train().hidden_states(batch)
    assert torch.equal(quiet, trained)


def test_kept_inputs_give_the_same_stage_2_loss(small_model, world) -> None:
    model = small_model()
    model.set_stage(Stage.STAGE2)
    batch = to_device(world.batcher(model.config)(world.samples), "cpu")
    whole = model(batch, generator=generator())
    with torch.no_grad():
        hidden, _ = model.hidden_states(batch)
        inputs = model.action_inputs(hidden, batch, batch.robots[0])
    total, steps = model.action_loss(inputs, batch.robots[0], generator=generator())
    assert steps == whole.action_steps
    assert torch.equal(total, whole.action_sum)


def test_losses_are_determined_by_the_generator(small_model, world) -> None:
    model = small_model().eval()
    batch = world.batcher(model.config)(world.samples[:2])
    first, again = (model(batch, generator=generator()).action_sum for _ in range(2))
    assert torch.equal(first, again)
