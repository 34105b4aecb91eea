# SPDX-License-Identifier: Apache-2.0
"""The action expert: start, sampling, committed steps, sizes, robots."""

from __future__ import annotations

import pytest
import torch

from chatvla_policy.model.action import ActionExpert, Embodiment, action_size

PAPER_MILLIONS = {"S": 37, "B": 135, "L": 463, "XL": 680, "H": 956}


def conditions_of(expert: ActionExpert, inputs) -> object:
    return expert.condition("arm", inputs.tokens, inputs.state, inputs.reasoning)


@pytest.mark.parametrize("conditioning", ["latter_half", "cross_attention"])
def test_blocks_start_as_identity_and_output_as_zero(make_expert, inputs, conditioning: str) -> None:
    expert = make_expert(started=True, conditioning=conditioning)
    plan = expert.trunk.prepare(expert.time(torch.tensor([3.0, 50.0]))[None], conditions_of(expert, inputs))
    tokens = torch.randn(2, 6, 32)
    after = tokens
    for block, modulation, memory in zip(expert.trunk.blocks, plan.blocks, plan.memories, strict=True):
        mask = None if plan.mask is None else plan.mask[:, None, None]
        after = block(after, modulation[0], mask, memory)
    assert torch.equal(after, tokens)
    assert not expert.predict("arm", inputs.noise, plan, 0).any()


def test_modulations_of_all_steps_at_once_equal_those_step_by_step(make_expert, inputs) -> None:
    expert = make_expert()
    conditions = conditions_of(expert, inputs)
    shared = expert.sample("arm", conditions, noise_BTA=inputs.noise)
    per_step = expert.sample("arm", conditions, noise_BTA=inputs.noise, shared_modulations=False)
    torch.testing.assert_close(shared, per_step, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("conditioning", ["latter_half", "film", "concat", "cross_attention"])
def test_a_batch_equals_its_rows_one_by_one(make_expert, inputs, conditioning: str) -> None:
    expert = make_expert(conditioning=conditioning)
    together = expert.sample("arm", conditions_of(expert, inputs), noise_BTA=inputs.noise)
    for row in range(2):
        length = int(inputs.reasoning.valid_BL[row].sum())
        alone = expert.condition(
            "arm",
            inputs.tokens[row : row + 1],
            inputs.state[row : row + 1],
            type(inputs.reasoning)(
                hidden_BLV=inputs.reasoning.hidden_BLV[row : row + 1, :length],
                valid_BL=inputs.reasoning.valid_BL[row : row + 1, :length],
            ),
        )
        chunk = expert.sample("arm", alone, noise_BTA=inputs.noise[row : row + 1])
        torch.testing.assert_close(chunk[0], together[row], rtol=1e-4, atol=1e-5)


def test_state_reaches_the_chunk_past_the_trunk(make_expert, inputs) -> None:
    """With a skip that says "where the joints are", the prediction moves with the state exactly."""
    plain, expert = make_expert(), make_expert(state_skip=True)
    skip = expert.heads("arm").state_skip.weight
    expert.load_state_dict(plain.state_dict() | {"robots.arm.state_skip.weight": torch.zeros_like(skip)})
    plan_of = lambda one: one.trunk.prepare(one.time(torch.tensor([3.0]))[None], conditions_of(one, inputs))  # noqa: E731
    without = plain.predict("arm", inputs.noise, plan_of(plain), 0)
    assert torch.equal(expert.predict("arm", inputs.noise, plan_of(expert), 0), without)
    torch.nn.init.ones_(skip)
    added = expert.predict("arm", inputs.noise, plan_of(expert), 0) - without
    torch.testing.assert_close(added, inputs.state.sum(1)[:, None, None].expand_as(added), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"keyframe": 1.0, "state_skip": True, "patch": 4}, {"conditioning": "concat"}])
def test_robots_layers_that_are_stored_finer_than_the_trunk_stay_so(make_expert, inputs, fields: dict) -> None:
    expert = make_expert(**fields)
    exact = expert.sample("arm", conditions_of(expert, inputs), noise_BTA=inputs.noise)
    expert.bfloat16().robots.float()
    conditions = conditions_of(expert, inputs)
    mixed = expert.sample("arm", conditions, noise_BTA=inputs.noise)
    assert (expert.dtype, expert.heads("arm").dtype) == (torch.bfloat16, torch.float32)
    assert {embedding.dtype for embedding in conditions.embeddings} == {torch.bfloat16}
    for of_robot in (conditions.base_BTA, conditions.keyframe_BZ, conditions.guide_B1D):
        assert of_robot is None or of_robot.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=0.0, atol=0.1)


@pytest.mark.parametrize("objective", ["diffusion", "flow", "flow_clean"])
def test_an_expert_that_clips_reaches_no_further_than_one(make_expert, inputs, objective: str) -> None:
    reached = {}
    for clip in (True, False):
        expert = make_expert(objective=objective, clip_sample=clip)
        torch.nn.init.constant_(expert.heads("arm").action_out.bias, -3.0 if objective == "diffusion" else 3.0)
        chunk = expert.sample("arm", conditions_of(expert, inputs), noise_BTA=inputs.noise)
        reached[clip] = float(chunk.abs().max())
    assert reached[True] <= 1.0 < reached[False]


def test_sampling_is_determined_by_its_generator(make_expert, inputs) -> None:
    expert = make_expert()
    conditions = conditions_of(expert, inputs)
    first, again, other = (
        expert.sample("arm", conditions, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("objective", ["diffusion", "flow", "flow_clean"])
def test_committed_steps_are_kept_and_steer_the_rest(make_expert, inputs, objective: str) -> None:
    expert = make_expert(objective=objective)
    conditions = conditions_of(expert, inputs)
    free = expert.sample("arm", conditions, noise_BTA=inputs.noise)
    committed = inputs.chunk[:, :2]
    held = expert.sample("arm", conditions, noise_BTA=inputs.noise, committed_BPA=committed)
    assert torch.equal(held[:, :2], committed)
    assert not torch.allclose(held[:, 2:], free[:, 2:])


def test_clean_samples_stay_in_range_when_clipped(make_expert, inputs) -> None:
    expert = make_expert()
    assert float(expert.sample("arm", conditions_of(expert, inputs), noise_BTA=5 * inputs.noise).abs().max()) <= 1.0


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_token_holds_consecutive_steps_and_the_last_may_be_partly_empty(make_expert, inputs, patch: int) -> None:
    heads = make_expert(patch=patch).heads("arm")
    tokens = heads.tokens(inputs.chunk)
    assert tokens.shape == (2, -(-6 // patch), 32)
    changed = inputs.chunk.clone()
    changed[:, 3] += 1.0
    touched = (heads.tokens(changed) != tokens).any(-1).any(0)
    assert touched.nonzero().flatten().tolist() == [3 // patch]
    assert heads.steps_of(tokens).shape == (2, 6, 3)


def test_a_look_finds_what_the_action_tokens_ask_for_wherever_it_stands(make_expert, inputs) -> None:
    expert = make_expert(sight=8, token_width=6)
    look, image = expert.observation.look, torch.randn(2, 5, inputs.tokens.shape[-1])
    with torch.no_grad():
        look.place_IV.zero_()  # Without places the order of the image tokens is nothing to it.
        asked = torch.randn(2, look.ask[0].in_features)
        torch.testing.assert_close(look(image, asked), look(image.flip(1), asked))
        look.place_IV.normal_()
    assert not torch.allclose(look(image, asked), look(image.flip(1), asked))
    assert not torch.allclose(look(image, asked), look(image, -asked))
    seen = torch.cat([image, inputs.tokens], dim=1)
    moved = torch.cat([image + torch.randn_like(image), inputs.tokens], dim=1)
    first, other = (expert.condition("arm", each, inputs.state, inputs.reasoning) for each in (seen, moved))
    assert not torch.allclose(first.embeddings[0], other.embeddings[0])
    with pytest.raises(ValueError, match="9 image tokens, the action expert looks at 8 at most"):
        look(torch.randn(1, 9, image.shape[-1]), asked[:1])


def test_the_chunk_is_made_with_the_guessed_keyframe_in_hand(make_expert, inputs) -> None:
    expert = make_expert(keyframe=1.0, state_skip=True)
    conditions = conditions_of(expert, inputs)
    assert conditions.keyframe_BZ.shape == inputs.state.shape
    last = expert.heads("arm").keyframe_out[-1]
    chunk = expert.sample("arm", conditions, noise_BTA=inputs.noise)
    with torch.no_grad():
        last.bias[0] += 1.0
    moved = conditions_of(expert, inputs)
    torch.testing.assert_close(moved.keyframe_BZ[:, 1:], conditions.keyframe_BZ[:, 1:])
    assert not torch.allclose(expert.sample("arm", moved, noise_BTA=inputs.noise), chunk)
    assert make_expert().condition("arm", inputs.tokens, inputs.state, inputs.reasoning).keyframe_BZ is None


def test_dropout_hides_the_language_model_in_training_alone(make_expert, inputs) -> None:
    expert = make_expert(dropout=0.5)
    first, again = (conditions_of(expert, inputs).embeddings for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    expert.train()
    hidden, other = (conditions_of(expert, inputs).embeddings for _ in range(2))
    assert not torch.allclose(hidden[0], other[0])
    assert not torch.allclose(hidden[-1], other[-1])


@pytest.mark.parametrize("size", list(PAPER_MILLIONS))
def test_size_has_about_the_published_number_of_parameters(size: str) -> None:
    embodiment = Embodiment(name="arx_r5", state_width=14, action_width=14, horizon=50)
    with torch.device("meta"):
        expert = ActionExpert(action_size(size, embodiments=(embodiment,)), 1536)
    millions = sum(parameter.numel() for parameter in expert.parameters()) / 1e6
    assert millions == pytest.approx(PAPER_MILLIONS[size], rel=0.06)


def test_one_expert_drives_robots_of_different_widths(make_expert, inputs) -> None:
    arms = (
        Embodiment(name="arm", state_width=5, action_width=3, horizon=6),
        Embodiment(name="franka", state_width=7, action_width=10, horizon=16),
    )
    expert = make_expert(embodiments=arms)
    conditions = expert.condition("franka", inputs.tokens, torch.randn(2, 7), inputs.reasoning)
    assert expert.sample("franka", conditions, generator=torch.Generator()).shape == (2, 16, 10)


def test_unknown_robot_is_refused_with_those_that_exist(make_expert) -> None:
    with pytest.raises(ValueError, match="no heads for robot 'spot'; it has: arm"):
        make_expert().heads("spot")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 33}, "not a multiple of 4 heads"),
        ({"sample_steps": 0}, r"must lie in 1\.\.100"),
        ({"conditioning": "magic"}, "no conditioning 'magic'; there are: latter_half"),
        ({"keyframe": -1.0}, "keyframe weight is -1.0"),
        ({"objective": "guess"}, "no objective 'guess'; there are: diffusion, flow"),
    ],
)
def test_config_that_cannot_be_built_is_refused(make_expert, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_expert(**fields)
