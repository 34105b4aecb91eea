# SPDX-License-Identifier: Apache-2.0
"""A new tiny language model looks back, finds what is like a token, and knows which numbers share a digit."""

from dataclasses import replace

import pytest
import torch

from chatvla_control.robot_spec import robot_spec
from chatvla_policy.model.backbone import build_backbone
from chatvla_policy.model.sizes import qwen2vl_config
from chatvla_training.build_model import StartModel, start_model
from chatvla_training.first_weights import NUMBERS, wire_heads
from chatvla_training.recipes import find_recipe

TEXT = "The cards are left: 22, middle: 70, and right: 41. Where is 70"


@pytest.fixture(scope="module")
def start() -> StartModel:
    recipe = replace(find_recipe("tiny_glyphs"), scene_cache="")
    return start_model(recipe, (robot_spec("arx_r5"),))


def words(start: StartModel, ids: list[int]) -> torch.Tensor:
    return start.model.backbone.get_input_embeddings().weight.detach()[ids]


def attentions(start: StartModel, words_TV: torch.Tensor) -> tuple[torch.Tensor, ...]:
    backbone = start.model.backbone
    backbone.set_attn_implementation("eager")
    with torch.no_grad():
        out = backbone.model.language_model(inputs_embeds=words_TV[None], output_attentions=True)
    backbone.set_attn_implementation("sdpa")
    return tuple(layer[0] for layer in out.attentions)


def test_heads_of_the_first_layer_look_one_two_and_three_tokens_back(start: StartModel) -> None:
    weights_HTT = attentions(start, words(start, start.codec.plain(TEXT)))[0]
    for head, offset in enumerate(NUMBERS.offsets):
        for token in range(offset, weights_HTT.shape[1]):
            assert weights_HTT[head, token].argmax() == token - offset


def test_a_number_finds_its_other_mention(start: StartModel) -> None:
    ids = start.codec.plain(TEXT)
    first, last = (index for index, token in enumerate(ids) if start.codec.text([token]) == "70")
    assert last == len(ids) - 1
    weights_T = attentions(start, words(start, ids))[1][2, last].clone()
    weights_T[last] = 0  # itself
    assert weights_T.argmax() == first
    assert weights_T[first] > 2 * weights_T.sort().values[-2]


def test_a_place_finds_its_image_token_and_a_number_too() -> None:
    """Image tokens that say (an image, number, place), as `align` makes them, then the words of an answer.

    The wires are soft, and random embeddings are alike by chance: what holds is that the right token mostly wins.
    """
    found = 0
    for seed in range(6):
        recipe = replace(find_recipe("tiny_glyphs"), scene_cache="", seed=seed)
        start = start_model(recipe, (robot_spec("arx_r5"),))
        plain = start.codec.plain
        seen = [("22", " left"), ("70", " middle"), ("41", " right")]
        tokens = [words(start, [start.codec.image_id, *plain(number), *plain(place)]).sum(0) for number, place in seen]
        length = words(start, plain(TEXT)).norm(dim=1).mean()
        image_TV = torch.stack([token * length / token.norm() for token in tokens])
        for answer, right in ((" middle: ", 1), ("41 (", 2)):
            words_TV = torch.cat([image_TV, words(start, plain("Where is it?" + answer))])
            found += int(attentions(start, words_TV)[1][3, -1, : len(seen)].argmax() == right)
    assert found >= 8  # of 12; by chance 4


def test_numbers_that_share_a_digit_begin_alike(start: StartModel) -> None:
    embedding_TV = torch.nn.functional.normalize(start.model.backbone.get_input_embeddings().weight.detach(), dim=1)

    def alike(one: str, other: str) -> float:
        (first,), (second,) = start.codec.plain(one), start.codec.plain(other)
        return float(embedding_TV[first] @ embedding_TV[second])

    assert alike("70", "71") > 0.3
    assert alike("70", "20") > 0.3
    assert abs(alike("70", "21")) < 0.3


def test_a_model_without_the_heads_stays_as_it_was() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(qwen2vl_config("micro"))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert not wire_heads(backbone, 3)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_a_new_model_with_experts_begins_as_the_same_model_without(start: StartModel) -> None:
    recipe = replace(find_recipe("tiny_glyphs"), scene_cache="", moe="static")
    mixed = start_model(recipe, (robot_spec("arx_r5"),))
    assert mixed.model.config.moe.kind == "static"
    ids = torch.tensor([start.codec.plain(TEXT)])
    with torch.no_grad():
        dense, other = (each.model.backbone.model.language_model(input_ids=ids)[0] for each in (start, mixed))
    torch.testing.assert_close(other, dense)
