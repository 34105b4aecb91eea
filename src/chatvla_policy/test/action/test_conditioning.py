# SPDX-License-Identifier: Apache-2.0
"""Every conditioning variant trains, and reads what its name says."""

from __future__ import annotations

import pytest
import torch

from chatvla_policy.model.action.conditioning import VARIANTS

READS_OBSERVATION = {name: name != "all" for name in VARIANTS}
READS_REASONING = {name: name != "none" for name in VARIANTS}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_output_depends_on_exactly_what_the_variant_reads(make_expert, inputs, name: str) -> None:
    expert = make_expert(conditioning=name)
    hidden = inputs.reasoning.hidden_BLV.clone().requires_grad_()
    state = inputs.state.clone().requires_grad_()
    reasoning = type(inputs.reasoning)(hidden_BLV=hidden, valid_BL=inputs.reasoning.valid_BL)
    conditions = expert.condition("arm", inputs.tokens, state, reasoning)
    loss = expert.losses("arm", conditions, inputs.chunk, noise_BTA=inputs.noise, uniform_B=torch.tensor([0.2, 0.7]))
    gradients = torch.autograd.grad(loss.sum(), [hidden, state], allow_unused=True)
    assert (gradients[0] is not None and bool(gradients[0].any())) == READS_REASONING[name]
    assert (gradients[1] is not None and bool(gradients[1].any())) == READS_OBSERVATION[name]
    if gradients[0] is not None:
        assert not gradients[0][~inputs.reasoning.valid_BL].any(), "padding is read"


@pytest.mark.parametrize("name", list(VARIANTS))
def test_variant_trains_and_its_path_gets_gradient(make_expert, inputs, name: str) -> None:
    expert = make_expert(started=True, conditioning=name).train()
    optimiser = torch.optim.Adam(expert.parameters(), lr=3e-3)
    uniform = torch.tensor([0.2, 0.7])
    losses = []
    for _ in range(40):
        conditions = expert.condition("arm", inputs.tokens, inputs.state, inputs.reasoning)
        loss = expert.losses("arm", conditions, inputs.chunk, noise_BTA=inputs.noise, uniform_B=uniform).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    if name != "none":
        assert all(bool(parameter.grad.any()) for parameter in expert.conditioning.parameters())


@pytest.mark.parametrize(
    ("name", "reasoning_layers"),
    [("latter_half", [2, 3, 4]), ("former_half", [0, 1]), ("all", [0, 1, 2, 3, 4]), ("none", [])],
)
def test_layers_read_reasoning_as_the_paper_places_it(
    make_expert, inputs, name: str, reasoning_layers: list[int]
) -> None:
    expert = make_expert(conditioning=name)
    observation = torch.randn(2, 32)
    conditions = expert.conditioning(observation, inputs.reasoning)
    places = [layer for layer, embedding in enumerate(conditions.embeddings) if embedding is not observation]
    assert places == reasoning_layers


def test_film_starts_as_the_plain_observation(make_expert, inputs) -> None:
    expert = make_expert(started=True, conditioning="film")
    observation = torch.randn(2, 32)
    torch.testing.assert_close(expert.conditioning(observation, inputs.reasoning).embeddings[0], observation)


@pytest.mark.parametrize("tail", [0, 1, 2, 5])
def test_reasoning_is_the_mean_of_its_tokens_or_the_last_of_them(make_expert, inputs, tail: int) -> None:
    embed = make_expert(started=True, reasoning_tail=tail, token_width=6).conditioning.embed
    hidden, valid = inputs.reasoning.hidden_BLV, inputs.reasoning.valid_BL
    rows = [row[kept] for row, kept in zip(hidden, valid, strict=True)]
    # The second text has four tokens: of five, the first is missing and stands as zeros.
    filled = [torch.cat([torch.zeros(tail, row.shape[1]), row])[-tail:].flatten() for row in rows]
    expected = torch.stack(filled if tail else [row.mean(0) for row in rows])
    torch.testing.assert_close(embed.pooled(hidden, valid), embed(expected))
    nothing = embed.pooled(hidden, torch.zeros_like(valid))
    torch.testing.assert_close(nothing, embed(torch.zeros_like(expected)))


def test_numbers_that_a_text_states_reach_the_reasoning_as_values(make_expert, inputs) -> None:
    expert = make_expert(numbers=3, token_width=6)
    embed, (hidden, valid) = expert.conditioning.embed, (inputs.reasoning.hidden_BLV, inputs.reasoning.valid_BL)
    stated = torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.9, float("nan"), float("nan"), 0.3]])
    found = embed.pooled(hidden, valid, None, stated)
    moved = embed.pooled(hidden, valid, None, stated + torch.tensor([0.0, 0.0, 0.0, 0.05]))
    assert not torch.isclose(found, moved).all(1).any()
    # Beyond the last three nothing is read, and a number that is missing is not one that is 0.5.
    torch.testing.assert_close(
        embed.pooled(hidden, valid, None, stated.clone().fill_(0.4)[:, 1:]),
        embed.pooled(hidden, valid, None, stated.clone().fill_(0.4)),
    )
    half = embed.pooled(hidden, valid, None, stated.nan_to_num(0.5))
    torch.testing.assert_close(half[0], found[0])
    assert not torch.allclose(half[1], found[1])
    assert found.isfinite().all()
    with pytest.raises(ValueError, match="give its text's numbers"):
        embed.pooled(hidden, valid)
    with pytest.raises(ValueError, match=r"reads 33 numbers, must lie in 0\.\.32"):
        make_expert(numbers=33)


def test_the_reasoning_asks_the_image_for_what_the_text_chose(make_expert, inputs) -> None:
    expert = make_expert(sight=8, token_width=6, reasoning_tail=2)
    image = torch.randn(2, 5, inputs.tokens.shape[-1])
    seen, moved = (torch.cat([part, inputs.tokens], dim=1) for part in (image, image.flip(1)))
    first, other = (expert.condition("arm", each, inputs.state, inputs.reasoning) for each in (seen, moved))
    assert not torch.allclose(first.embeddings[-1], other.embeddings[-1])
    embed, reasoning = expert.conditioning.embed, inputs.reasoning
    with torch.no_grad():
        embed.squeeze.weight.zero_()  # What is left of the text in r is what it asked for.
    changed = reasoning.hidden_BLV.clone()
    changed[0, -1] += 1.0
    found, asked = (embed.pooled(hidden, reasoning.valid_BL, image) for hidden in (reasoning.hidden_BLV, changed))
    assert not torch.allclose(found[0], asked[0])
    torch.testing.assert_close(found[1], asked[1])


def test_a_state_among_action_tokens_weighs_the_same_however_small_its_embedding(make_expert, inputs) -> None:
    expert = make_expert(started=True)
    near, far = torch.randn(2, 32), torch.randn(2, 32)
    with torch.no_grad():
        apart = expert.observation(inputs.tokens, near) - expert.observation(inputs.tokens, far)
        apart_small = expert.observation(inputs.tokens, 0.05 * near) - expert.observation(inputs.tokens, 0.05 * far)
    torch.testing.assert_close(apart_small, apart, rtol=0.05, atol=0.01)
