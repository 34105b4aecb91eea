# SPDX-License-Identifier: Apache-2.0
"""Run the language half at inference: look, write or be given a reasoning, end with the action tokens.

Every way ends in the same place, with the hidden states of the same tokens: whether a text was generated, forced,
reused or drafted, r and o depend only on the prompt, the images and the text. So generated ids that are not the
tokenizer's own split of their text are replaced by that split, in one forward.
A text of the model's own that is doubted, since it contradicts itself say, is read a second time (second_look.py).
A text may be written from several readings: the images and copies of them in other sizes. Each token is then chosen
by the mean of their log-probabilities (test-time augmentation); the states are those of the first, as it was taken.
Tensors: B readings, V language width, L reasoning tokens with their end token, Q action tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatvla_control.contracts import InputKind
from chatvla_policy.model.action import ReasoningTokens
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_policy.model.decode import Decoder, DecodeState
from chatvla_policy.model.moe import Path, Routing, RoutingTrace, routing
from chatvla_policy.model.second_look import SecondLook
from chatvla_policy.processing.images import PreparedImages
from chatvla_policy.processing.prompts import Prompt, PromptError
from chatvla_policy.processing.stated_numbers import stated_numbers
from chatvla_policy.processing.tokens import TextCodec

__all__ = ["Reasoner", "Sampling", "Thought"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen."""

    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Thought:
    """A reasoning and what the action expert reads of it."""

    text: str
    reasoning: ReasoningTokens
    tokens_1SV: Tensor
    """States at the image tokens, where the expert looks at them, then at the action tokens."""
    decoded: int
    """Tokens that were decoded one by one."""
    trace: RoutingTrace


class Reasoner:
    """The language half at inference, one observation at a time."""

    def __init__(self, model: ChatVLA2, codec: TextCodec) -> None:
        """Take the model and its tokenizer."""
        self.model, self.codec = model, codec
        self._decoder = Decoder(model.backbone)
        self._second_look = SecondLook(self._decoder, codec)

    @torch.inference_mode()
    def think(
        self,
        prompt: Prompt,
        images: PreparedImages | None,
        *,
        variants: Iterable[PreparedImages] = (),
        text: str | None = None,
        draft: str | None = None,
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        doubt: Callable[[str], bool] | None = None,
    ) -> Thought:
        """Return the reasoning about `images` with its action tokens.

        A text of its own is read from `images` and from their `variants` together; where `doubt` says True of it, a
        second time. Sampled texts are not doubted.
        `text` is taken as given, in one forward. `draft` is only proposed: verified in one forward, continued where
        the model differs; under greedy decoding the result is what it would have written without.
        """
        with routing(Routing(path=Path(int(prompt.kind)))) as trace:
            if text is not None:
                thought = self._follow(prompt, images, *self.written(text), trace)
            else:
                thought = self._write(
                    prompt, _readings(images, variants), draft, sampling or Sampling(), generator, trace, doubt
                )
        return thought

    @torch.inference_mode()
    def answer(
        self,
        prompt: Prompt,
        images: PreparedImages | None,
        *,
        variants: Iterable[PreparedImages] = (),
        draft: str | None = None,
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        pause: Callable[[], None] | None = None,
        doubt: Callable[[str], bool] | None = None,
    ) -> tuple[str, RoutingTrace]:
        """Return what the model writes after `prompt`, no action tokens; `variants`, `draft`, `doubt` as in `think`.

        `pause` is called before each forward, each reading's too: the caller may think something else there.
        """
        draft_ids = None if draft is None else self.written(draft)[1]
        with routing(Routing(path=Path(int(prompt.kind)))) as trace:
            state = self._look(prompt, _readings(images, variants), pause=pause)
            ids, _, _ = self._decode(prompt, state, draft_ids, sampling or Sampling(), generator, pause, doubt)
        return self.codec.text(ids), trace

    def written(self, text: str) -> tuple[str, list[int]]:
        """Return a text within the longest reasoning of the config, and its ids with the end token.

        The returned text has exactly the returned ids: forcing it later gives the same states.
        """
        ids = self.codec.reasoning(text)
        for spare in range(1, self._longest):
            if len(ids) < self._longest:
                break
            # Cutting may split a character; what remains of it is dropped, not replaced.
            text = self.codec.text(ids[: self._longest - spare]).rstrip("\ufffd")
            ids = self.codec.reasoning(text)
        return text, [*ids, self.codec.end_id]

    def check_length(self, text: str) -> None:
        """Raise PromptError when `text` is longer than the longest reasoning: it would be cut."""
        count = len(self.codec.reasoning(text)) + 1
        if count > self._longest:
            raise PromptError(f"the reasoning has {count} tokens, at most {self._longest} are followed; shorten it")

    @property
    def _longest(self) -> int:
        return self.model.config.max_reasoning_tokens

    @property
    def _queries_1QV(self) -> Tensor:  # noqa: N802
        return self.model.queries_QV[None].to(self.model.backbone.dtype)

    def _look(
        self,
        prompt: Prompt,
        readings: Sequence[PreparedImages],
        given: Sequence[int] = (),
        pause: Callable[[], None] | None = None,
    ) -> DecodeState:
        """Return the state after reading the prompt, one row for each reading and one where there is none.

        `given` ids with action tokens pass in the same forward.
        """
        device = self.model.queries_QV.device
        return self._decoder.prefill(
            torch.tensor([[*prompt.ids, *given]] * max(1, len(readings)), device=device),
            pixel_values=torch.cat([one.pixel_values_PX for one in readings]).to(device) if readings else None,
            image_grid_thw=torch.cat([one.grid_thw_N3 for one in readings]).to(device) if readings else None,
            tail_BND=self._queries_1QV if given else None,
            room=0 if given else self._longest + 1 + self.model.config.action.queries,
            pause=pause,
        )

    def _follow(
        self, prompt: Prompt, images: PreparedImages | None, text: str, ids: Sequence[int], trace: RoutingTrace
    ) -> Thought:
        """Return the thought with given ids: prompt, text and action tokens pass in one forward."""
        state = self._look(prompt, _readings(images), ids)
        return self._finish(prompt, state, state.prompt_hidden_BTD[:, len(prompt.ids) :], text, 0, trace)

    def _append(self, state: DecodeState, ids: Sequence[int]) -> Tensor:
        """Return the states of given ids and the action tokens after them, shape (1, L + Q, V)."""
        ids_1L = torch.tensor([list(ids)], device=self.model.queries_QV.device)
        embeds_1LV = self.model.backbone.get_input_embeddings()(ids_1L)
        return self._decoder.forward_embeds(state, torch.cat([embeds_1LV, self._queries_1QV], dim=1))

    def _write(
        self,
        prompt: Prompt,
        readings: Sequence[PreparedImages],
        draft: str | None,
        sampling: Sampling,
        generator: torch.Generator | None,
        trace: RoutingTrace,
        doubt: Callable[[str], bool] | None,
    ) -> Thought:
        """Return the thought with a text of the model's own."""
        state = self._look(prompt, readings)
        length, hidden_BV = state.mark()
        draft_ids = None if draft is None else self.written(draft)[1]
        ids, hidden_1LV, decoded = self._decode(prompt, state, draft_ids, sampling, generator, None, doubt)
        state = state.first_row()
        text, own_ids = self.written(self.codec.text(ids))
        if ids == own_ids:
            rest_1QV = self._decoder.forward_embeds(state, self._queries_1QV)
            return self._finish(prompt, state, torch.cat([hidden_1LV, rest_1QV], dim=1), text, decoded, trace)
        state.rewind((length, hidden_BV[:1]))
        return self._finish(prompt, state, self._append(state, own_ids), text, decoded, trace)

    def _decode(
        self,
        prompt: Prompt,
        state: DecodeState,
        draft_ids: list[int] | None,
        sampling: Sampling,
        generator: torch.Generator | None,
        pause: Callable[[], None] | None,
        doubt: Callable[[str], bool] | None,
    ) -> tuple[list[int], Tensor, int]:
        """Return new ids, their hidden states in the first row and how many were decoded one by one."""
        stop_ids = {self.codec.end_id, self.codec.pad_id}
        openings = self.model.config.openings if prompt.kind is InputKind.ROBOT else ()
        pause, start = pause or _go_on, state.mark()
        if draft_ids is not None and sampling.temperature == 0:
            draft_1N = torch.tensor([draft_ids], device=state.hidden_BD.device)
            pause()
            made = self._decoder.verify(
                state,
                draft_1N,
                max_new_tokens=self._longest,
                stop_ids=stop_ids,
                openings=openings,
                pause=pause,
            )
        else:
            made = self._decoder.generate(
                state,
                max_new_tokens=self._longest,
                stop_ids=stop_ids,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                generator=generator,
                agree=True,
                openings=openings,
                pause=pause,
            )
        ids = made.tokens_BN[0].tolist()
        hidden_1NV, decoded = made.hidden_BND[:1], len(ids) - made.accepted
        if doubt is not None and sampling.temperature == 0 and doubt(self.codec.text(ids)):
            ids, hidden_1NV = self._second_look.look(
                state, start, ids, doubt=doubt, longest=self._longest, stop_ids=stop_ids, pause=pause
            )
        return ids, hidden_1NV, decoded

    def _finish(
        self, prompt: Prompt, state: DecodeState, hidden_1SV: Tensor, text: str, decoded: int, trace: RoutingTrace
    ) -> Thought:
        """Return the thought whose states are the reasoning's and the action tokens', side by side."""
        queries = self.model.config.action.queries
        written_1LV = hidden_1SV[:, :-queries]
        tokens_1SV = hidden_1SV[:, -queries:]
        if self.model.config.action.sight:
            seen = [place for place, token in enumerate(prompt.ids) if token == self.codec.image_id]
            tokens_1SV = torch.cat([state.prompt_embeds_BTD[:, seen], tokens_1SV], dim=1)
        return Thought(
            text=text,
            reasoning=ReasoningTokens(
                hidden_BLV=written_1LV,
                valid_BL=torch.ones(written_1LV.shape[:2], dtype=torch.bool, device=written_1LV.device),
                numbers_BM=torch.from_numpy(stated_numbers(text))[None].to(written_1LV.device),
            ),
            tokens_1SV=tokens_1SV,
            decoded=decoded,
            trace=trace,
        )


def _go_on() -> None:
    """Pause for nothing."""


def _readings(images: PreparedImages | None, variants: Iterable[PreparedImages] = ()) -> tuple[PreparedImages, ...]:
    return () if images is None else (images, *variants)
