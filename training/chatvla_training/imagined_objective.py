# SPDX-License-Identifier: Apache-2.0
"""Teach a new language model to speak about pictures before its vision tower sees: image tokens made of words.

`align` turns each image token towards the sum of the words that it shows (dense_objectives.py). Here the language
model gets such sums themselves, with noise, in the places of a scene's image tokens, and learns to read, find, solve
and choose from them. A step costs no tower, and both halves can be trained side by side:

  token = normalize(a u + sqrt(1 - a^2) n) |w|,  u = normalize(sum of its words), n a random direction, a ~ U(f, 1)

with |w| the mean length of the embeddings and f how faint a token may be, 0.4 unless asked
otherwise. Now and then a token says a number that is not there.
Tensors: B rows, T tokens; M image tokens of all rows; S words that can be shown; V language width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from chatvla_policy.model.batch import VlaBatch, to_device
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_policy.model.loss import LossTerms, language_terms
from chatvla_policy.processing.images import ImageConfig, ImagePreparer, PreparedImages
from chatvla_policy.processing.samples import Batcher
from chatvla_training.data.samples import ChatSample
from chatvla_training.dense_objectives import NUMBER_SHARE
from chatvla_training.objectives import Built, CollateFunction
from chatvla_training.scene_labels import scene_labels
from chatvla_training.tied_words import TiedWords, tied_words
from chatvla_training.trainer.task import TrainingTask

__all__ = ["ImaginedBatch", "ImaginedCollate", "ImaginedTask", "ShownWords", "imagined"]

CLEAREST, FAINTEST = 1.0, 0.4
"""Cosine between a token and the sum of its words."""
STRAY_SHARE, STRAY_SIZE = 0.1, 0.6
"""How often a token says a number besides, and how loudly."""


class ShownWords(Protocol):
    """Words that image tokens can say."""

    @property
    def ids_S(self) -> Tensor:  # noqa: N802
        """Their tokens."""

    @property
    def numbers_NS(self) -> Tensor:  # noqa: N802
        """What a token may say though it is not there, one in each row."""


@dataclass(frozen=True, kw_only=True)
class ImaginedBatch:
    """Rows whose image tokens are made of words; rows without image make a batch of their own."""

    batch: VlaBatch
    shares_MS: Tensor | None
    """How much of each word each image token says, in the order of the rows; None without images."""


def imagined(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return the objective of `synthetic:imagined` and its like."""
    words = tied_words(built.start.codec)
    return ImaginedTask(built.start.model, words), MathCollate(built, words)


class _NoPixels(ImagePreparer):
    """Says how many tokens pictures take and where they lie in them, and prepares nothing."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__(config)
        self._like: dict[tuple[int, ...], PreparedImages] = {}

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> PreparedImages:
        """Return tokens and placements of one image."""
        shape = images[0].shape
        if shape not in self._like:
            prepared = super().__call__([np.zeros(shape, np.uint8)])
            self._like[shape] = replace(prepared, pixel_values_PX=prepared.pixel_values_PX[:0])
        return self._like[shape]


class ImaginedCollate:
    """Samples with scenes to batches."""

    def __init__(self, built: Built) -> None:
        self._converted = built.collate.converted
        self._images = _NoPixels(built.start.model.config.images)
        self._batcher = Batcher(codec=built.start.codec, images=self._images, statistics={}, queries=0, horizons={})

    def __call__(self, samples: Sequence[ChatSample]) -> tuple[ImaginedBatch, ...]:
        """Return the rows with pictures and those without."""
        shown = [sample for sample in samples if "scene" in sample.extras]
        told = [sample for sample in samples if "scene" not in sample.extras]
        parts = []
        if shown:
            shares = torch.cat([self.shares(sample) for sample in shown])
            parts.append(ImaginedBatch(batch=self._batch(shown), shares_MS=shares))
        if told:
            parts.append(ImaginedBatch(batch=self._batch(told), shares_MS=None))
        return tuple(parts)

    def _batch(self, samples: Sequence[ChatSample]) -> VlaBatch:
        return replace(self._batcher([self._converted(sample) for sample in samples]), pixel_values_PX=None)

    def prepared(self, sample: ChatSample) -> PreparedImages:
        """Return where the picture of `sample` lies in its tokens."""
        return self._images([sample.images[0]])

    def shares(self, sample: ChatSample) -> Tensor:
        """Return how much of each word each image token of `sample` says, shape (M, S)."""
        raise NotImplementedError


class MathCollate(ImaginedCollate):
    """Samples with math scenes."""

    def __init__(self, built: Built, words: TiedWords) -> None:
        super().__init__(built)
        self._words = words

    def shares(self, sample: ChatSample) -> Tensor:
        """Return how much of each word each image token of `sample` says, shape (M, S)."""
        prepared = self.prepared(sample)
        labels = scene_labels(sample.extras["scene"], prepared.placements[0], prepared.grid_thw_N3.tolist()[0])
        marked = (labels.characters_P, labels.places_P, labels.tens_P, labels.units_P)
        characters_M4, places_M4, tens_M4, units_M4 = (part.view(-1, 4) for part in marked)
        said_MS, number_MS = self._words.said_by(characters_M4, places_M4.amax(1), tens_M4.amax(1), units_M4.amax(1))
        return said_MS + (NUMBER_SHARE - 1) * number_MS + self._words.image_S


class _Imagined(nn.Module):
    """The language model on image tokens made of words."""

    def __init__(self, model: ChatVLA2, words: ShownWords, faintest: float) -> None:
        super().__init__()
        self.model, self.words, self.faintest = model, words, faintest
        self._numbers_N = words.numbers_NS.argmax(1)

    def forward(self, parts: Sequence[ImaginedBatch], *, generator: torch.Generator | None = None) -> LossTerms:
        """Return the language loss of all parts."""
        total, tokens, router = torch.zeros(()), 0, torch.zeros(())
        for part in parts:
            batch = part.batch
            embeds_BTV = self.model.embed(batch.ids_BT, batch.query_BT)
            if part.shares_MS is not None:
                seen_MV = self._tokens(part.shares_MS, generator).to(embeds_BTV.dtype)
                image_BT = batch.ids_BT == self.model.config.backbone.image_token
                embeds_BTV = embeds_BTV.masked_scatter(image_BT[..., None], seen_MV)
            hidden_BTV, trace = self.model.hidden_states(batch, embeds_BTV=embeds_BTV)
            summed, count = language_terms(hidden_BTV, batch.ids_BT, batch.text_BT, self.model.backbone.lm_head)
            total, tokens, router = total + summed, tokens + count, router + trace.loss() / len(parts)
        zero = total.detach().new_zeros(())
        return LossTerms(
            language_sum=total,
            language_tokens=tokens,
            action_sum=zero,
            action_steps=0,
            router=router,
            action_weight=1.0,
        )

    def _tokens(self, shares_MS: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return image tokens that say `shares`, shape (M, V)."""
        embedding_TV = self.model.backbone.get_input_embeddings().weight.detach()
        device = embedding_TV.device

        def drawn(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator).to(device)

        count = len(shares_MS)
        stray_M = torch.randint(len(self._numbers_N), (count,), generator=generator)
        stray_MS = functional.one_hot(self._numbers_N[stray_M], shares_MS.shape[1]).to(device)
        shares_MS = shares_MS + STRAY_SIZE * (drawn(count, 1) < STRAY_SHARE) * stray_MS
        words_SV = embedding_TV[self.words.ids_S.to(device)]
        words_SV = functional.normalize(words_SV - words_SV.mean(0), dim=1)
        noise_MV = torch.randn((count, words_SV.shape[1]), generator=generator).to(device)
        clear_M1 = self.faintest + (CLEAREST - self.faintest) * drawn(count, 1)
        direction_MV = clear_M1 * functional.normalize(shares_MS @ words_SV, dim=1)
        direction_MV = direction_MV + (1 - clear_M1.square()).sqrt() * functional.normalize(noise_MV, dim=1)
        return functional.normalize(direction_MV, dim=1) * embedding_TV.norm(dim=1).mean()


class ImaginedTask:
    """`_Imagined` as the loop takes it."""

    def __init__(self, model: ChatVLA2, words: ShownWords, *, faintest: float = FAINTEST) -> None:
        self.module: nn.Module = _Imagined(model, words, faintest)

    def counts(self, batch: Any) -> tuple[int, int]:
        """Return written tokens, and no chunk steps."""
        return sum(int(part.batch.text_BT.sum()) for part in batch), 0

    def place(self, batch: Any, device: torch.device) -> Any:
        """Return the batch on `device`."""
        return tuple(
            ImaginedBatch(
                batch=to_device(part.batch, device),
                shares_MS=None if part.shares_MS is None else part.shares_MS.to(device),
            )
            for part in batch
        )

    def action_error(self, batch: Any, generator: torch.Generator) -> dict[str, tuple[float, int]]:
        """Return nothing: no action is trained."""
        return {}
