# SPDX-License-Identifier: Apache-2.0
r"""The one definition of what the language model is told: robot task and question, as Qwen2-VL's chat.

  <|im_start|>system\n{system}<|im_end|>\n
  <|im_start|>user\n(<|vision_start|><|image_pad|>*<|vision_end|> per view){text}<|im_end|>\n
  <|im_start|>assistant\n{reasoning or answer}<|im_end|>
The robot's sequence goes on with the action tokens, directly after the end token.
The system prompts tell the two kinds of input apart, as ChatVLA-1 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatvla_control.contracts import InputKind
from chatvla_policy.processing.tokens import TextCodec

__all__ = ["MAX_TEXT_CHARACTERS", "SYSTEM_PROMPTS", "Prompt", "PromptError", "Turn", "question_prompt", "robot_prompt"]

SYSTEM_PROMPTS = {
    InputKind.UNDERSTANDING: "Answer based on question",
    InputKind.ROBOT: "Predict robot action",
}
MAX_TEXT_CHARACTERS = 4000
"""Longest instruction or question accepted."""


class PromptError(ValueError):
    """The text cannot be asked; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One question and its answer in a dialogue."""

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Token ids up to where the model begins to write."""

    kind: InputKind
    ids: tuple[int, ...]
    images: int
    """Number of images whose places the ids hold."""
    answers: tuple[tuple[int, int], ...] = ()
    """Where earlier answers of the dialogue stand: start and stop in `ids`, end token included."""


def robot_prompt(codec: TextCodec, instruction: str, *, image_tokens: Sequence[int]) -> Prompt:
    """Return the prompt that asks for reasoning and action; `image_tokens` holds the number of tokens per view."""
    return _prompt(codec, InputKind.ROBOT, instruction, image_tokens, ())


def question_prompt(
    codec: TextCodec, question: str, *, image_tokens: Sequence[int] = (), earlier: Sequence[Turn] = ()
) -> Prompt:
    """Return the prompt that asks a question about images, after `earlier` turns of the same dialogue."""
    return _prompt(codec, InputKind.UNDERSTANDING, question, image_tokens, earlier)


def _prompt(
    codec: TextCodec, kind: InputKind, text: str, image_tokens: Sequence[int], earlier: Sequence[Turn]
) -> Prompt:
    """Return the chat; the images stand in the first user turn."""
    start, end = codec.control("<|im_start|>"), codec.end_id
    newline = codec.plain("\n")
    answers: list[tuple[int, int]] = []
    places: list[int] = []
    for count in image_tokens:
        places += [codec.control("<|vision_start|>"), *[codec.image_id] * count, codec.control("<|vision_end|>")]
    ids = [start, *codec.plain(f"system\n{SYSTEM_PROMPTS[kind]}"), end, *newline]
    for turn in (*earlier, Turn(question=text, answer="")):
        checked = _checked(turn.question)
        user = [*codec.plain("user\n"), *places, *codec.plain(checked)] if places else codec.plain(f"user\n{checked}")
        ids += [start, *user, end, *newline, start, *codec.plain("assistant\n")]
        places = []
        if turn.answer:
            begin = len(ids)
            ids += [*codec.reasoning(turn.answer), end]
            answers.append((begin, len(ids)))
            ids += newline
    return Prompt(kind=kind, ids=tuple(ids), images=len(image_tokens), answers=tuple(answers))


def _checked(text: str) -> str:
    """Return the text stripped. Raises PromptError when it is empty or too long."""
    stripped = text.strip()
    if not stripped:
        raise PromptError("the instruction is empty; say what to do or ask")
    if len(stripped) > MAX_TEXT_CHARACTERS:
        raise PromptError(f"the instruction has {len(stripped)} characters, at most {MAX_TEXT_CHARACTERS} are read")
    return stripped
