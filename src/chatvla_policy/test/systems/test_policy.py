# SPDX-License-Identifier: Apache-2.0
"""A checkpoint as a policy: forced, reused and drafted reasoning, chunks, questions, golden check."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from chatvla_control.chunk_check import check_chunk
from chatvla_control.contracts import InputKind, ReasoningSource
from chatvla_policy.checkpoint import CheckpointError, GoldenMismatchError, save_checkpoint
from chatvla_policy.model.config import ChatVLA2Config
from chatvla_policy.model.moe import MoeConfig
from chatvla_policy.model.reasoner import Sampling
from chatvla_policy.processing.prompts import PromptError
from chatvla_policy.strict_json import StrictJsonError
from chatvla_policy.systems import load_policy
from chatvla_policy.systems.chatvla2 import ChatVLA2Policy
from chatvla_policy.systems.settings import ObservationError, PolicySettings, Reuse

TEXT = "On the whiteboard is 1+2. 1+2=3. I should pick left card."


@pytest.fixture
def make_policy(small_model, world):
    def make(*, seed: int = 0, settings: PolicySettings | None = None, **fields: object) -> ChatVLA2Policy:
        model = small_model(**fields)
        with torch.no_grad():  # A random model repeats one token; wider weights make it wander.
            for name, weight in model.backbone.named_parameters():
                if weight.dim() == 2 and "visual" not in name:
                    weight.mul_(6.0)
        return ChatVLA2Policy(world.checkpoint(model), seed=seed, settings=settings)

    return make


@pytest.mark.parametrize("kind", ["dense", "dynamic", "static"])
def test_forced_reasoning_equals_generated_reasoning_of_the_same_text(make_policy, world, kind: str) -> None:
    policy = make_policy(moe=MoeConfig(kind=kind, experts=4))
    generated = policy.infer(world.observation())
    policy.reset(0)
    forced = policy.infer(world.observation(), forced_reasoning=generated.reasoning.text)
    assert forced.reasoning.text == generated.reasoning.text
    assert len(generated.reasoning.text) > 10
    np.testing.assert_allclose(forced.chunk.actions, generated.chunk.actions, atol=1e-5)
    assert (generated.reasoning.source, forced.reasoning.source) == (ReasoningSource.GENERATED, ReasoningSource.FORCED)


@pytest.mark.parametrize("sight", [0, 64])
def test_reasoning_embedding_of_forced_and_generated_text_is_the_same(make_policy, world, codec, sight: int) -> None:
    from chatvla_policy.processing.images import ImagePreparer
    from chatvla_policy.processing.prompts import robot_prompt

    policy = make_policy(sight=sight, reasoning_tail=2 if sight else 0)
    reasoner = policy._reasoner
    images = ImagePreparer(policy.checkpoint.model.config.images)([world.samples[0].images[0]])
    prompt = robot_prompt(codec, "Pick.", image_tokens=images.tokens)
    written = reasoner.think(prompt, images)
    given = reasoner.think(prompt, images, text=written.text)
    assert written.reasoning.hidden_BLV.shape == given.reasoning.hidden_BLV.shape
    expert = policy.checkpoint.model.expert
    embed, queries = expert.conditioning.embed, expert.config.queries
    with torch.inference_mode():
        first, second = (
            embed.pooled(part.reasoning.hidden_BLV, part.reasoning.valid_BL, part.tokens_1SV[:, :-queries])
            for part in (written, given)
        )
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(written.tokens_1SV, given.tokens_1SV, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sight", [0, 64])
def test_inference_reads_the_same_states_as_training(make_policy, world, sight: int) -> None:
    policy = make_policy(sight=sight, numbers=4)
    model, sample = policy.checkpoint.model.eval(), world.samples[0]
    batch = world.batcher(model.config)([sample, *world.samples[1:3]])
    with torch.no_grad():
        hidden, _ = model.hidden_states(batch)
        trained = model.action_inputs(hidden, batch, batch.robots[0])
    images = policy._images(sample.images)
    from chatvla_policy.processing.prompts import robot_prompt

    prompt = robot_prompt(policy.checkpoint.codec, sample.instruction, image_tokens=images.tokens)
    thought = policy._reasoner.think(prompt, images, text=sample.reasoning)
    seen = sum(images.tokens) if sight else 0
    assert thought.tokens_1SV.shape[1] == seen + model.config.action.queries
    torch.testing.assert_close(thought.tokens_1SV[0], trained.tokens_BSV[0], rtol=1e-3, atol=1e-4)
    written = thought.reasoning.hidden_BLV[0]
    torch.testing.assert_close(
        written, trained.reasoning.hidden_BLV[0][trained.reasoning.valid_BL[0]], rtol=1e-3, atol=1e-3
    )
    assert (~trained.reasoning.numbers_BM[0].isnan()).any()
    torch.testing.assert_close(thought.reasoning.numbers_BM[0], trained.reasoning.numbers_BM[0], equal_nan=True)


def test_a_text_of_its_own_begins_as_the_robot_data_does_and_an_answer_anyhow(make_policy, world, codec) -> None:
    policy, opening = make_policy(), codec.reasoning("Therefore")[0]
    free, question = policy.infer(world.observation()).reasoning.text, "Which one?"
    answer = policy.ask(question)
    assert codec.reasoning(free)[0] != opening != codec.reasoning(answer)[0]
    policy._model.config = replace(policy._model.config, openings=(opening,))
    policy.reset(0)
    written = policy.infer(world.observation()).reasoning.text
    assert codec.reasoning(written)[0] == opening
    policy.forget_reasoning()
    policy.settings = replace(policy.settings, reuse=Reuse.DRAFT)
    assert policy.infer(world.observation()).reasoning.text == written, "a draft of the same text is kept"
    policy._last = replace(policy._last, text=free)
    assert policy.infer(world.observation()).reasoning.text == written, "a draft that begins otherwise is not"
    assert policy.ask(question) == answer
    assert policy.infer(world.observation(), forced_reasoning=free).reasoning.text == free


def test_a_forced_text_without_numbers_is_thought_about_by_a_policy_that_acts_on_them(make_policy, world) -> None:
    policy, forced = make_policy(numbers=4, settings=PolicySettings(reuse=Reuse.REFRESH)), "I should pick the card."
    own = policy.infer(world.observation()).reasoning
    policy.reset(0)
    first = policy.infer(world.observation(), forced_reasoning=forced)
    policy.reset(0)
    asked = policy.infer(replace(world.observation(), instruction=forced))
    assert first.reasoning.text == asked.reasoning.text != own.text
    assert (first.reasoning.source, asked.reasoning.source) == (ReasoningSource.FORCED, ReasoningSource.GENERATED)
    assert (first.reasoning.instruction, asked.reasoning.instruction) == (own.instruction, forced)
    np.testing.assert_allclose(first.chunk.actions, asked.chunk.actions, atol=1e-5)
    again = policy.infer(world.observation(stamp_s=2.0), forced_reasoning=forced).reasoning
    assert (again.text, again.source) == (first.reasoning.text, ReasoningSource.FORCED)
    back = policy.infer(world.observation(stamp_s=3.0)).reasoning
    assert (back.text, back.source) == (own.text, ReasoningSource.GENERATED)
    stated = "I should pick the card, from 516 428."
    assert [policy.thinks_about(text) for text in (forced, stated)] == [True, False]
    assert policy.infer(world.observation(), forced_reasoning=stated).reasoning.text == stated
    plain = make_policy()
    assert plain.infer(world.observation(), forced_reasoning=forced).reasoning.text == forced


def test_a_checkpoint_says_how_long_its_texts_may_serve(make_policy, world) -> None:
    policy = make_policy()
    assert policy.settings.reason_every_s == PolicySettings().reason_every_s
    config = replace(policy._model.config, text_age_s=2.0)
    policy._model.config = config
    for asked, used in ((10.0, 2.0), (1.0, 1.0)):
        settings = PolicySettings(reuse=Reuse.REFRESH, reason_every_s=asked)
        bounded = ChatVLA2Policy(policy.checkpoint, settings=settings)
        assert (bounded.settings.reason_every_s, bounded.settings.longest_text_s) == (used, 2.0)


@pytest.mark.parametrize("reuse", [Reuse.REFRESH, Reuse.DRAFT])
def test_text_of_several_readings_acts_as_the_same_text_forced(make_policy, world, reuse: Reuse) -> None:
    settings = PolicySettings(reuse=reuse, reason_every_s=0.0)
    policy = make_policy(settings=settings)
    policy._model.config = replace(policy._model.config, readings=3)
    policy.reset(0)
    written = policy.infer(world.observation())
    drafted = policy.infer(world.observation())
    policy.reset(0)
    forced = policy.infer(world.observation(), forced_reasoning=written.reasoning.text)
    np.testing.assert_allclose(forced.chunk.actions, written.chunk.actions, atol=1e-5)
    assert drafted.reasoning.text == written.reasoning.text
    assert drafted.reasoning.source is ReasoningSource.GENERATED


def test_checkpoint_from_before_readings_reads_once(small_model) -> None:
    config = small_model().config
    data = json.loads(config.to_json())
    assert data.pop("readings") == 1
    assert ChatVLA2Config.from_plain(data) == config
    with pytest.raises(StrictJsonError, match=r"readings are 9, must lie in 1\.\.5"):
        ChatVLA2Config.from_plain(data | {"readings": 9})


def test_chunk_follows_the_forced_text(make_policy, world) -> None:
    policy = make_policy()
    chunks = []
    for text in (TEXT, TEXT.replace("left", "right")):
        policy.reset(0)
        chunks.append(policy.infer(world.observation(), forced_reasoning=text).chunk.actions)
    assert not np.allclose(*chunks)


def test_same_seed_gives_the_same_inference_and_another_does_not(make_policy, world) -> None:
    policy = make_policy(settings=PolicySettings(sampling=Sampling(temperature=1.0)))
    results = []
    for seed in (0, 0, 1):
        policy.reset(seed)
        results.append(policy.infer(world.observation()))
    assert results[0].reasoning.text == results[1].reasoning.text != results[2].reasoning.text
    assert np.array_equal(results[0].chunk.actions, results[1].chunk.actions)
    assert results[0].chunk.id == results[1].chunk.id


def test_draft_is_lossless_and_saves_decoding(make_policy, world) -> None:
    fresh, drafted = make_policy(), make_policy(settings=PolicySettings(reuse=Reuse.DRAFT))
    first = drafted.infer(world.observation(0))
    again = drafted.infer(world.observation(0, stamp_s=1.1))
    assert again.reasoning.text == first.reasoning.text
    assert again.reasoning.source is ReasoningSource.GENERATED
    other = drafted.infer(world.observation(1, stamp_s=1.2))
    assert other.reasoning.text == fresh.infer(world.observation(1)).reasoning.text


def test_reused_text_is_refreshed_on_the_new_image(make_policy, world) -> None:
    policy = make_policy(settings=PolicySettings(reuse=Reuse.REFRESH, reason_every_s=1.0))
    first = policy.infer(world.observation(0))
    reused = policy.infer(world.observation(1, stamp_s=1.5))
    late = policy.infer(world.observation(1, stamp_s=2.5))
    assert reused.reasoning.text == first.reasoning.text
    sources = [result.reasoning.source for result in (first, reused, late)]
    assert sources == [ReasoningSource.GENERATED, ReasoningSource.REUSED, ReasoningSource.GENERATED]
    assert reused.reasoning.stamp_s == 1.5
    assert reused.chunk.reasoning_source is ReasoningSource.REUSED
    assert not np.allclose(reused.chunk.actions, first.chunk.actions)


@pytest.mark.parametrize("readings", [1, 3])
def test_a_text_written_apart_is_the_same_whatever_happens_between_its_pieces(
    make_policy, world, readings: int
) -> None:
    policy = make_policy()
    policy._model.config = replace(policy._model.config, readings=readings)
    first, second = world.observation(0), world.observation(1, stamp_s=3.0)
    expected = policy.infer(second).reasoning
    policy.reset(0)
    text = policy.infer(first).reasoning.text
    policy.settings = PolicySettings(reuse=Reuse.REFRESH, reason_every_s=np.inf)
    between = []
    written = policy.write(second, pause=lambda: between.append(policy.infer(second).reasoning))
    assert written.text == expected.text
    assert (written.stamp_s, written.source) == (3.0, ReasoningSource.GENERATED)
    assert len(between) >= 2
    assert {(one.text, one.source) for one in between} == {(text, ReasoningSource.REUSED)}
    policy.adopt(written)
    after = policy.infer(world.observation(1, stamp_s=4.0)).reasoning
    assert (after.text, after.source) == (written.text, ReasoningSource.REUSED)


def test_text_is_not_reused_for_another_instruction(make_policy, world) -> None:
    policy = make_policy(settings=PolicySettings(reuse=Reuse.REFRESH))
    policy.infer(world.observation())
    other = replace(world.observation(stamp_s=1.1), instruction="Put the card back.")
    assert policy.infer(other).reasoning.source is ReasoningSource.GENERATED


def test_forced_text_is_not_reused_after_its_release(make_policy, world) -> None:
    policy = make_policy(settings=PolicySettings(reuse=Reuse.REFRESH))
    policy.infer(world.observation(), forced_reasoning=TEXT)
    assert policy.infer(world.observation(stamp_s=1.1)).reasoning.source is ReasoningSource.GENERATED


def test_chunk_is_stamped_hashed_and_playable(make_policy, world, tmp_path) -> None:
    save_checkpoint(tmp_path / "c", make_policy().checkpoint)
    policy = load_policy(tmp_path / "c", device="cpu", seed=3)
    chunk = policy.infer(world.observation(stamp_s=7.0)).chunk
    assert (chunk.stamp_s, chunk.start_s, chunk.valid_until_s) == (7.0, 7.0, pytest.approx(7.16))
    assert chunk.joint_names == world.spec.joint_names
    assert len(chunk.checkpoint_hash) == len(chunk.statistics_hash) == 64
    assert chunk.statistics_hash == world.statistics.sha256()
    assert check_chunk(chunk, world.spec, now_s=7.0) is None


def test_committed_part_of_the_previous_chunk_is_kept(make_policy, world) -> None:
    policy = make_policy(settings=PolicySettings(commit_s=0.05))
    first = policy.infer(world.observation()).chunk
    second = policy.infer(world.observation(stamp_s=1.04), previous_chunk=first).chunk
    np.testing.assert_allclose(second.actions[:3], first.actions[2:5], atol=1e-5)
    assert not np.allclose(second.actions[3:6], first.actions[5:8], atol=1e-5)


def test_router_statistics_come_with_each_inference(make_policy, world) -> None:
    stats = make_policy().infer(world.observation()).router
    assert stats is not None
    assert stats.kind is InputKind.ROBOT
    np.testing.assert_allclose(stats.load.sum(1), 1.0, atol=1e-5)


def test_boxes_and_answer_are_read_from_the_text(make_policy, world) -> None:
    text = TEXT + " <|object_ref_start|>card<|object_ref_end|><|box_start|>(0,0),(500,500)<|box_end|>"
    reasoning = make_policy().infer(world.observation(), forced_reasoning=text).reasoning
    (box,) = reasoning.boxes
    assert (box.label, box.view) == ("card", "top")
    assert (box.x_max, box.y_max) == pytest.approx((160.0, 120.0))
    assert reasoning.answer == "3"


def test_the_model_still_answers_questions(make_policy, world) -> None:
    policy = make_policy()
    answers = {policy.ask("What is this?", {"top": world.samples[0].images[0]}), policy.ask("What is 2+2?")}
    assert all(isinstance(answer, str) for answer in answers)
    assert len(answers) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {}}, "no image of view 'top'; the observation has: none"),
        ({"joint_positions": np.zeros(7)}, r"shape \(7,\), arx_r5 expects \(14,\)"),
        ({"joint_positions": np.full(14, np.nan)}, "left_joint1 is not a finite number"),
    ],
)
def test_observation_that_does_not_fit_is_refused(make_policy, world, change: dict, message: str) -> None:
    with pytest.raises(ObservationError, match=message):
        make_policy().infer(replace(world.observation(), **change))


def test_forced_text_that_would_be_cut_is_refused(make_policy, world) -> None:
    with pytest.raises(PromptError, match="at most 64 are followed"):
        make_policy().infer(world.observation(), forced_reasoning="Pick " * 400)


def test_golden_input_is_checked_when_activated(make_policy, world, tmp_path) -> None:
    policy, fewer = make_policy(), PolicySettings(denoise_steps=2)
    golden = policy.make_golden(world.observation(), TEXT)
    policy.settings = fewer
    assert np.array_equal(policy.make_golden(world.observation(), TEXT).chunk, golden.chunk)
    save_checkpoint(tmp_path / "c", replace(policy.checkpoint, golden=golden))
    loaded = load_policy(tmp_path / "c")
    assert loaded.check_golden() <= 1e-4
    loaded.settings = fewer
    assert loaded.check_golden() <= 1e-4, "the checkpoint is what is checked, not how it is run now"
    with torch.no_grad():
        loaded.checkpoint.model.queries_QV.add_(1.0)
    with pytest.raises(GoldenMismatchError, match=r"differs from the stored one by"):
        loaded.check_golden()


def test_unknown_name_lists_what_exists() -> None:
    with pytest.raises(CheckpointError, match="'nowhere' is no folder, nor a checkpoint that comes with the package"):
        load_policy("nowhere")


def test_unknown_system_and_robot_list_what_exists(make_policy, world, tmp_path) -> None:
    policy = make_policy()
    save_checkpoint(tmp_path / "c", policy.checkpoint)
    with pytest.raises(CheckpointError, match="does not drive robot 'franka'; it drives: arx_r5"):
        load_policy(tmp_path / "c", robot="franka")
    model = policy.checkpoint.model
    model.config = replace(model.config, system="other")
    save_checkpoint(tmp_path / "c", policy.checkpoint)
    with pytest.raises(CheckpointError, match="of system 'other'; this version knows: chatvla2"):
        load_policy(tmp_path / "c")
