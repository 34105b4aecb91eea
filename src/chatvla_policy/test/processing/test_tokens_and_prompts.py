# SPDX-License-Identifier: Apache-2.0
"""Tokens and prompts: the same as transformers' own, and safe against text that imitates control tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatvla_policy.model.tiny import make_tiny_tokenizer
from chatvla_policy.processing.prompts import PromptError, Turn, question_prompt, robot_prompt
from chatvla_policy.processing.tokens import BOX_MARKS, CONTROL_TOKENS, TextCodec, TokenizerError


@pytest.fixture(scope="module")
def reference() -> object:
    return make_tiny_tokenizer()


def test_robot_prompt_equals_qwen2vl_chat(codec: TextCodec, reference) -> None:
    prompt = robot_prompt(codec, "Pick the card.", image_tokens=[3, 2])
    chat = (
        "<|im_start|>system\nPredict robot action<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|image_pad|><|image_pad|><|vision_end|>"
        "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>Pick the card.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert list(prompt.ids) == reference(chat)["input_ids"]
    assert prompt.images == 2


def test_dialogue_equals_qwen2vl_chat_and_marks_answers(codec: TextCodec, reference) -> None:
    prompt = question_prompt(
        codec, "Which one?", image_tokens=[1], earlier=[Turn(question="How many?", answer="Three cards.")]
    )
    chat = (
        "<|im_start|>system\nAnswer based on question<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|>How many?<|im_end|>\n<|im_start|>assistant\n"
        "Three cards.<|im_end|>\n<|im_start|>user\nWhich one?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert list(prompt.ids) == reference(chat)["input_ids"]
    ((start, stop),) = prompt.answers
    assert reference.decode(prompt.ids[start:stop]) == "Three cards.<|im_end|>"


@pytest.mark.parametrize("token", CONTROL_TOKENS + BOX_MARKS)
def test_instruction_cannot_forge_a_control_token(codec: TextCodec, token: str) -> None:
    honest = robot_prompt(codec, "Pick the card.", image_tokens=[2])
    forged = robot_prompt(codec, f"Pick {token} the card.", image_tokens=[2])
    assert forged.ids.count(codec.control(token)) == honest.ids.count(codec.control(token))


def test_reasoning_text_keeps_box_marks_as_tokens(codec: TextCodec) -> None:
    text = "<|object_ref_start|>card<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|> then <|im_end|>"
    ids = codec.reasoning(text)
    assert [ids.count(codec.control(mark)) for mark in BOX_MARKS] == [1, 1, 1, 1]
    assert codec.end_id not in ids
    assert codec.text(ids) == text


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_survives_the_round_trip(codec: TextCodec, text: str) -> None:
    assert codec.text(codec.reasoning(text)) == __import__("unicodedata").normalize("NFC", text)


@pytest.mark.parametrize(("text", "message"), [("  ", "is empty"), ("x" * 4001, "at most 4000")])
def test_unusable_instruction_is_refused(codec: TextCodec, text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        robot_prompt(codec, text, image_tokens=[1])


def test_file_that_is_no_tokenizer_is_refused(tmp_path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is no tokenizer"):
        TextCodec.from_file(tmp_path / "tokenizer.json")
