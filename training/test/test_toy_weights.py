# SPDX-License-Identifier: Apache-2.0
"""A new tiny language model for toys finds a label's rectangle, in words and in image tokens made of words."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.nn import functional

from chatvla_control.robot_spec import robot_spec
from chatvla_policy.checkpoint import load_checkpoint
from chatvla_policy.model.moe import MoeKind
from chatvla_policy.processing.prompts import question_prompt
from chatvla_training import build_model
from chatvla_training.build_data import Collate
from chatvla_training.build_model import StartModel, init_folder, start_model
from chatvla_training.first_weights import RECTANGLES
from chatvla_training.objectives import Built, make_objective
from chatvla_training.recipes import find_recipe
from chatvla_training.synthetic.sources import open_source
from chatvla_training.synthetic.toy_facts import scattered_things, scene_boxes
from chatvla_training.text.toy_phrases import side_words
from chatvla_training.text.toy_questions import ThingFacts, told
from chatvla_training.toy_words import COLOUR_NAMES, KIND_NAMES, toy_words
from chatvla_training.vocabulary import tiny_tokenizer

TOKENS, GRID = 108, (18, 24)


@pytest.fixture(autouse=True)
def one_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the vocabulary once: it is the same for all of these models."""
    monkeypatch.setattr(build_model, "tiny_tokenizer", vocabulary)


@cache
def vocabulary(tasks: tuple[str, ...]) -> object:
    return tiny_tokenizer(tasks)


def new_model(seed: int) -> StartModel:
    recipe = replace(find_recipe("tiny_toys_points"), scene_cache="", seed=seed)
    return start_model(recipe, (robot_spec("franka"),))


def words(start: StartModel, ids: list[int]) -> torch.Tensor:
    return start.model.backbone.get_input_embeddings().weight.detach()[ids]


def attentions(
    start: StartModel, words_TV: torch.Tensor, places: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    start.model.backbone.set_attn_implementation("eager")
    with torch.no_grad():
        out = start.model.backbone.model.language_model(
            inputs_embeds=words_TV[None], position_ids=places, output_attentions=True
        )
    return tuple(layer[0] for layer in out.attentions)


def numbers(thing: ThingFacts) -> list[str]:
    return re.findall(r"\d{3}", thing.box)


def before_numbers(start: StartModel, ids: list[int]) -> list[int]:
    """Return the places from which the four numbers of a rectangle are said."""
    return [place - 1 for place, token in enumerate(ids) if start.codec.text([token]) in side_words()]


def test_heads_of_the_first_layer_look_one_to_four_tokens_back() -> None:
    start = new_model(0)
    ids = start.codec.plain(told(scattered_things(random.Random(3))))
    weights_HTT = attentions(start, words(start, ids))[0]
    for head, offset in enumerate(RECTANGLES.offsets):
        assert all(weights_HTT[head, token].argmax() == token - offset for token in range(offset, len(ids)))


def test_each_side_finds_its_number_in_a_told_table() -> None:
    """The wires are soft: the right token gets many times what one of so many would get by chance."""
    shares = []
    for seed in range(4):
        start, rng = new_model(seed), random.Random(seed)
        things = scattered_things(rng)
        asked = things[1]
        question = start.codec.plain(f"{told(things)} Where is the {asked.label}?")
        answer = start.codec.reasoning(asked.box)
        layer_HTT = attentions(start, words(start, question + answer))[1]
        texts = [start.codec.text([token]) for token in question]
        for side, (number, place) in enumerate(zip(numbers(asked), before_numbers(start, answer), strict=True)):
            weights_T = layer_HTT[1 - side % 2, len(question) + place]
            shares.append(float(weights_T[texts.index(number)]) * len(weights_T))
    assert sum(shares) / len(shares) > 8.0


def test_a_label_finds_the_image_tokens_that_say_it_among_a_hundred_others() -> None:
    """Image tokens are made of words, and stand where those of a picture do."""
    right = other = background = text = 0.0
    for seed in range(4):
        start, rng = new_model(seed), random.Random(seed)
        things = scattered_things(rng)[:3]
        said = toy_words(start.codec)
        kinds, colours, boxes = torch.zeros(TOKENS).long(), torch.zeros(TOKENS).long(), torch.zeros(TOKENS, 4)
        mixed = rng.sample(range(TOKENS), 3 * len(things))
        places = [mixed[number :: len(things)] for number in range(len(things))]
        for thing, tokens in zip(things, places, strict=True):
            colour, kind = thing.label.split()
            kinds[tokens], colours[tokens] = 1 + KIND_NAMES.index(kind), 1 + COLOUR_NAMES.index(colour)
            boxes[tokens] = torch.tensor([int(number) / 1000 for number in numbers(thing)])
        embedding_TV = start.model.backbone.get_input_embeddings().weight.detach()
        words_SV = functional.normalize(embedding_TV[said.ids_S] - embedding_TV[said.ids_S].mean(0), dim=1)
        image_MV = functional.normalize(said.shares(kinds, colours, boxes) @ words_SV, dim=1)
        prompt = question_prompt(start.codec, f"Where is the {things[0].label}?", image_tokens=[TOKENS])
        answer = start.codec.reasoning(things[0].box)
        ids = torch.tensor([[*prompt.ids, *answer]])
        shown = ids[0] == start.codec.image_id
        words_TV = embedding_TV[ids[0]].clone()
        words_TV[shown] = image_MV * embedding_TV.norm(dim=1).mean()
        grid = torch.tensor([[1, *GRID]])
        layer_HTT = attentions(start, words_TV, placed(start, ids, grid))[1]
        weights_T = layer_HTT[2, len(prompt.ids) + before_numbers(start, answer)[0]]
        weights_M = weights_T[shown]
        text += float(weights_T[~shown].sum())
        right += float(weights_M[places[0]].sum())
        other += float(weights_M[places[1] + places[2]].sum()) / 2
        background += float(weights_M.sum() - weights_M[mixed].sum())
    assert right > 2 * other
    assert right > background
    assert right > text, "the label's own words in the question are liker than any token of a picture"


def test_names_and_numbers_of_a_side_do_not_disturb_one_another() -> None:
    """What a sum of words says can be read again: names lie at right angles, each side's numbers in a plane apart."""
    start = new_model(0)
    attention = start.model.backbone.model.language_model.layers[1].self_attn
    words_HV = functional.normalize(attention.k_proj.weight.detach()[64:96], dim=1)
    copied_HV = functional.normalize(attention.k_proj.weight.detach()[96:128], dim=1)
    names = [token for name in (*KIND_NAMES, *COLOUR_NAMES) if len(token := start.codec.plain(name)) == 1]
    name_NH = functional.normalize(words(start, [token[0] for token in names]) @ words_HV.T, dim=1)
    assert (name_NH @ name_NH.T - torch.eye(len(names))).abs().max() < 0.01
    sides = [[start.codec.plain(word)[0] for word in side_words() if word.endswith(digit)] for digit in "2468"]
    number_4NH = torch.stack([functional.normalize(words(start, ids) @ copied_HV.T, dim=1) for ids in sides])
    apart = torch.einsum("snh,tmh->stnm", number_4NH, number_4NH).abs().amax((2, 3))
    assert (apart - torch.diag(apart.diag())).max() < 0.01
    top, others = sides[1], [*sides[0], *sides[2], *sides[3]]
    assert (
        (words(start, others) @ words_HV.T).norm(dim=1).max()
        < 0.01
        < (words(start, top) @ words_HV.T).norm(dim=1).min()
    )


def placed(start: StartModel, ids_1T: torch.Tensor, grid_13: torch.Tensor) -> torch.Tensor:
    """Return where the tokens stand, as image tokens do in rows and columns, shape (3, 1, T)."""
    kinds_1T = (ids_1T == start.codec.image_id).int()
    return start.model.backbone.model.get_rope_index(ids_1T, mm_token_type_ids=kinds_1T, image_grid_thw=grid_13)[0]


def test_numbers_that_are_near_begin_alike_and_sides_apart() -> None:
    start = new_model(0)

    def alike(one: str, two: str) -> float:
        first_V, second_V = (words(start, start.codec.plain(text))[0] for text in (one, two))
        return float(functional.cosine_similarity(first_V, second_V, dim=0))

    assert alike("432", "442") > 0.7 > alike("432", "462") > 0.0
    assert abs(alike("432", "632")) < 0.35
    assert abs(alike("432", "434")) < 0.35
    assert alike("red", " red") > 0.8 > alike("red", " blue")


def test_imagined_tokens_of_a_scene_say_what_is_seen_there() -> None:
    recipe = replace(find_recipe("tiny_toys_words"), init="", init_gain=3.0, image_width=336)
    start = start_model(recipe, [robot_spec("franka")])
    collate = Collate(start.model, start.codec, ())
    task, make = make_objective(Built(recipe=recipe, start=start, collate=collate, half_width={}))
    samples = [open_source("toys_imagined", 3).sample(index, 0) for index in range(6)]
    shown = [sample for sample in samples if sample.images]
    parts = make(samples)
    assert sum(len(part.batch.ids_BT) for part in parts) == 6
    assert parts[0].batch.pixel_values_PX is None
    shares_MS = parts[0].shares_MS
    assert len(shares_MS) == TOKENS * len(shown)
    said = toy_words(start.codec)
    names = [start.codec.text([token]).strip() for token in said.ids_S.tolist()]
    for number, sample in enumerate(shown):
        scene = sample.extras["scene"]
        boxes = dict(zip([thing.label for thing in scene.trial.things], scene_boxes(scene), strict=True))
        found = set()
        for row_S in shares_MS[number * TOKENS : (number + 1) * TOKENS]:
            assert row_S[0] == 1.0, "every token says that it is of an image"
            words_said = [names[place] for place in row_S.nonzero().flatten().tolist() if names[place]]
            if len(words_said) < 2:
                continue
            (colour,), (kind,) = (set(words_said) & set(known) for known in (COLOUR_NAMES, KIND_NAMES))
            sides = [int(word) for word in words_said if word.isdigit()]
            left, top, right, bottom = boxes[f"{colour} {kind}"]
            assert sides == pytest.approx([left / 0.32, top / 0.24, right / 0.32, bottom / 0.24], abs=5.5)
            found.add(f"{colour} {kind}")
        assert found
    loss = task.module(parts).language_sum
    loss.backward()
    assert torch.isfinite(loss)
    assert start.model.backbone.get_input_embeddings().weight.grad is None


def test_base_of_other_systems_has_the_experts_mean_and_a_new_action_expert() -> None:
    recipe = find_recipe("tiny_toys_base")
    start, policy = start_model(recipe, [robot_spec("franka")]).model, load_checkpoint(init_folder("tiny_toys")).model
    assert start.config.moe.kind is MoeKind.DENSE
    name = "layers.2.mlp.{}down_proj.weight"
    states = policy.backbone.model.language_model.state_dict()
    mean = sum(states[name.format(f"experts.{number}.")].float() for number in range(8)) / 8
    found = start.backbone.model.language_model.state_dict()[name.format("")]
    torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-6)
    learned = policy.expert.state_dict()
    trained = {key: value for key, value in start.expert.state_dict().items() if value.dim() > 1 and key in learned}
    alike = [key for key, value in trained.items() if torch.equal(value, learned[key].float()) and value.any()]
    assert trained
    assert not alike
