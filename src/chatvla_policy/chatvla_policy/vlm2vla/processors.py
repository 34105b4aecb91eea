# SPDX-License-Identifier: Apache-2.0
"""Turn a chat about images into a model's inputs, for any image-text model of transformers.

Where torchvision is installed, transformers' own AutoProcessor does it. Without torchvision that class cannot even be
imported for some models; the parts that need none (tokenizer, PIL image processor) are then put together here.
P patches or pixels as the model takes them; T tokens.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["ChatProcessor", "ProcessorError", "load_processor"]


class ProcessorError(ValueError):
    """A folder whose processor cannot be had; the message says what is missing."""


class ChatProcessor:
    """A tokenizer, its chat template and an image processor, as one call."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, whole: ProcessorMixin | None, images: BaseImageProcessor | None
    ) -> None:
        """Take transformers' `whole` processor, or its image processor alone for a model with image grids."""
        self.tokenizer = tokenizer
        self._whole, self._images = whole, images
        if not getattr(whole, "chat_template", None) and not tokenizer.chat_template:
            raise ProcessorError("the base model has no chat template; give an instruction-tuned model")
        # Longest first: a token may be part of another.
        self._marks = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True)

    def plain(self, text: str, *, keep: Collection[str] = ()) -> str:
        """Return text in which no control token of the model is left but `keep`: it cannot forge a turn or an image."""
        for mark in self._marks:
            if mark not in keep:
                text = text.replace(mark, f"{mark[:1]} {mark[1:]}")
        return text

    def __call__(self, text: str, images: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
        """Return the inputs of one user turn with `images` (RGB) before `text`, up to where the model writes."""
        content: list[dict[str, str]] = [{"type": "image"} for _ in images]
        chat = [{"role": "user", "content": [*content, {"type": "text", "text": self.plain(text)}]}]
        template = self._whole if self._whole is not None and self._whole.chat_template else self.tokenizer
        prompt = template.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        if self._whole is not None:
            given = {"images": list(images)} if images else {}
            # The template writes the start token itself where the model has one.
            out = self._whole(text=[prompt], add_special_tokens=False, return_tensors="pt", **given)
            return {key: value for key, value in out.items() if isinstance(value, Tensor)}
        return self._with_grids(prompt, images)

    def _with_grids(self, prompt: str, images: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
        """Return the inputs of a Qwen2-VL kind of model: one image token per merged patch."""
        assert self._images is not None
        inputs: dict[str, Tensor] = {}
        image_token = "<|image_pad|>"
        if images:
            out = self._images(list(images), return_tensors="pt", input_data_format="channels_last")
            inputs = {"pixel_values": out["pixel_values"], "image_grid_thw": out["image_grid_thw"]}
            merged = self._images.merge_size**2  # type: ignore[attr-defined]
            first, *rest = prompt.split(image_token)
            counts = [math.prod(grid) // merged for grid in inputs["image_grid_thw"].tolist()]
            prompt = first + "".join(image_token * count + part for count, part in zip(counts, rest, strict=True))
        ids_1T = torch.tensor([self.tokenizer(prompt, add_special_tokens=False).input_ids])
        is_image = ids_1T == self.tokenizer.convert_tokens_to_ids(image_token)
        return {
            "input_ids": ids_1T,
            "attention_mask": torch.ones_like(ids_1T),
            "mm_token_type_ids": is_image.long(),
            **inputs,
        }


def load_processor(folder: Path) -> ChatProcessor:
    """Return the processor of a base model's folder. Raises ProcessorError."""
    from transformers import AutoProcessor

    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = None
    # Where torchvision is missing, which Qwen3-VL says as a ValueError, the parts are put together that need none.
    with suppress(ImportError, ValueError):
        whole = AutoProcessor.from_pretrained(folder)
    if isinstance(whole, ProcessorMixin):
        return ChatProcessor(tokenizer, whole=whole, images=None)
    kind = AutoConfig.from_pretrained(folder).model_type
    images = _image_processor(kind, folder)
    if "image_grid_thw" in images.model_input_names:
        return ChatProcessor(tokenizer, whole=None, images=images)
    return ChatProcessor(tokenizer, whole=_whole(kind, tokenizer, images), images=None)


def _image_processor(kind: str, folder: Path) -> BaseImageProcessor:
    name = "qwen2_vl" if kind.startswith(("qwen2", "qwen3")) else kind
    try:
        module = import_module(f"transformers.models.{name}.image_processing_pil_{name}")
    except ImportError as error:
        raise ProcessorError(f"model type {kind!r} has no image processor without torchvision; install it") from error
    classes = [item for key, item in vars(module).items() if key.endswith("ImageProcessorPil")]
    own = [item for item in classes if item.__module__ == module.__name__]
    return own[0].from_pretrained(folder)


def _whole(kind: str, tokenizer: PreTrainedTokenizerBase, images: BaseImageProcessor) -> ProcessorMixin:
    try:
        module = import_module(f"transformers.models.{kind}.processing_{kind}")
        made: list[Any] = [
            item
            for key, item in vars(module).items()
            if inspect.isclass(item) and key.endswith("Processor") and item.__module__ == module.__name__
        ]
        return made[0](image_processor=images, tokenizer=tokenizer, chat_template=tokenizer.chat_template)
    except (ImportError, IndexError, TypeError) as error:
        raise ProcessorError(f"model type {kind!r} needs torchvision for its processor: {error}") from error
