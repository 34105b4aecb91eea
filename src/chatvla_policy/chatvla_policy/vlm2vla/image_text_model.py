# SPDX-License-Identifier: Apache-2.0
"""Any image-text model of transformers, with low-rank adapters: read a question about images, write the answer.

The action-token variant maps the digits of an answer to ten token ids that the base model hardly ever writes; the
mapping is made here, id by id, for training and inference alike. (VLM2VLA, appendix B.3)
T prompt tokens, N answer tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from chatvla_policy.model.backbone import resolve_folder
from chatvla_policy.processing.images import ImageConfig, ImagePreparer
from chatvla_policy.processing.tokens import BOX_MARKS
from chatvla_policy.vlm2vla.processors import ChatProcessor, load_processor

__all__ = ["AnswerCodec", "ChatInputs", "ImageTextModel", "extended", "load_base"]


class AnswerCodec:
    """Answers to token ids and back, digits mapped where the variant says so; box marks are the only control tokens."""

    def __init__(self, processor: ChatProcessor, end_ids: Sequence[int], digit_tokens: Sequence[int] = ()) -> None:
        """`end_ids`: what ends an answer, the first of them is written; `digit_tokens`: ids of 0 to 9, or none."""
        self._tokenizer = processor.tokenizer
        self._processor = processor
        self.end_ids = tuple(end_ids)
        self._of_digit = dict(zip("0123456789", digit_tokens, strict=False))
        self._digit_of = {token: digit for digit, token in self._of_digit.items()}
        known = processor.tokenizer.get_vocab()
        self._boxes = {known[mark]: mark for mark in BOX_MARKS if mark in known}

    def ids(self, answer: str, *, mapped: bool = False) -> list[int]:
        """Return the ids of an answer without its end; digits are mapped when `mapped` and the variant does so."""
        text = self._processor.plain(answer, keep=BOX_MARKS)
        if not (mapped and self._of_digit):
            return list(self._tokenizer(text, add_special_tokens=False).input_ids)
        found: list[int] = []
        for piece in re.split(r"(\d)", text):
            if piece in self._of_digit:
                found.append(self._of_digit[piece])
            elif piece:
                found += self._tokenizer(piece, add_special_tokens=False).input_ids
        return found

    def text(self, ids: Sequence[int], *, mapped: bool = False) -> str:
        """Return the text of an answer's ids up to its end."""
        pieces: list[str] = []
        run: list[int] = []
        for token in [*ids, self.end_ids[0]]:
            own = self._digit_of.get(token) if mapped else self._boxes.get(token)
            ends = token in self.end_ids
            if own is None and not ends:
                run.append(token)
                continue
            if run:
                pieces.append(self._tokenizer.decode(run, skip_special_tokens=True))
                run = []
            if ends:
                break
            pieces.append(own or "")
        return "".join(pieces)


class ChatInputs:
    """All of a model but its weights: questions and answers to ids; small enough for a worker that makes batches."""

    def __init__(self, processor: ChatProcessor, codec: AnswerCodec, *, size: tuple[int, int]) -> None:
        """`size`: width and height [px] that every picture is brought to before the model's own processor."""
        self.processor, self.codec = processor, codec
        self._preparer = ImagePreparer(ImageConfig(width=size[0], height=size[1]))

    def __call__(self, question: str, images: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
        """Return the model's inputs for a question about images (RGB), on the CPU."""
        return self.processor(question, [self._preparer.place(image)[0] for image in images])


class ImageTextModel:
    """A base model, its adapter folded in or still in training, and its processor."""

    def __init__(
        self, model: nn.Module, processor: ChatProcessor, *, size: tuple[int, int], digit_tokens: Sequence[int] = ()
    ) -> None:
        """`size` as in ChatInputs; `digit_tokens`: ids of 0 to 9 in the action-token variant."""
        self.model, self.processor = model, processor
        self.codec = AnswerCodec(processor, _end_ids(model, processor), digit_tokens)
        self.inputs = ChatInputs(processor, self.codec, size=size)

    @classmethod
    def load(
        cls,
        base: str | Path,
        *,
        adapter: Path | None,
        size: tuple[int, int],
        digit_tokens: Sequence[int] = (),
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> ImageTextModel:
        """Return the model of a base folder or hub name with an adapter folded in, for inference."""
        model, processor = load_base(base, device=device, dtype=dtype)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()  # pyright: ignore
        return cls(model.eval(), processor, size=size, digit_tokens=digit_tokens)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the base's weights are."""
        return next(self.model.parameters()).dtype

    def plain(self, text: str) -> str:
        """Return text in which no control token of the model is left."""
        return self.processor.plain(text)

    @torch.inference_mode()
    def write(
        self,
        question: str,
        images: Sequence[NDArray[np.uint8]],
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
        begin: str = "",
        mapped: bool = False,
        min_new_tokens: int = 0,
    ) -> str:
        """Return the answer to a question, which starts with `begin`; temperature 0 takes the likeliest tokens.

        `mapped`: digits of this answer are written in the variant's tokens. `min_new_tokens`: where it may not end yet.
        """
        inputs = {key: value.to(self.device) for key, value in self.inputs(question, images).items()}
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        begun = self.codec.ids(begin, mapped=mapped) if begin else []
        inputs = extended(inputs, begun)
        length = inputs["input_ids"].shape[1]
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            ids_1T = self.model.generate(  # pyright: ignore
                **inputs,
                max_new_tokens=max_new_tokens,
                min_new_tokens=min_new_tokens or None,
                eos_token_id=list(self.codec.end_ids),
                pad_token_id=self.codec.end_ids[0],
                **(sampling or {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}),
            )
        return begin + self.codec.text(ids_1T[0, length:].tolist(), mapped=mapped)


def extended(inputs: dict[str, Tensor], ids: Sequence[int]) -> dict[str, Tensor]:
    """Return inputs with answer ids behind the prompt."""
    if not ids:
        return inputs
    tail_1N = torch.tensor([list(ids)], device=inputs["input_ids"].device)
    longer = {"input_ids": torch.cat([inputs["input_ids"], tail_1N], 1)}
    for key, fill in (("attention_mask", 1), ("mm_token_type_ids", 0), ("token_type_ids", 0)):
        if key in inputs:
            longer[key] = torch.cat([inputs[key], torch.full_like(tail_1N, fill)], 1)
    return {**inputs, **longer}


def load_base(
    base: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> tuple[nn.Module, ChatProcessor]:
    """Return model and processor of a local folder or hub name; reads tensors, JSON and a template, runs no code."""
    folder = resolve_folder(base)
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=dtype or (torch.float32 if device == "cpu" else "auto"), use_safetensors=True
    )
    return model.to(device), load_processor(folder)


def _end_ids(model: nn.Module, processor: ChatProcessor) -> list[int]:
    """Return what ends an answer: the turn's end as the template writes it, then what the model's config names."""
    tokenizer = processor.tokenizer
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    named = configured if isinstance(configured, list) else [configured]
    turn = [tokenizer.convert_tokens_to_ids(mark) for mark in ("<|im_end|>", "<end_of_turn>")]
    known = [token for token in (*turn, tokenizer.eos_token_id, *named) if token is not None]
    return list(dict.fromkeys(token for token in known if token != tokenizer.unk_token_id))
