# SPDX-License-Identifier: Apache-2.0
"""Teach a new vision tower dense labels before any language: what each patch shows, then what each image token says.

  glyphs   sheets of handwriting: the character of every patch
  align    whole scenes: character, card place, number of the card, row and column of every patch, and where the
           card's middle lies from there and how the card is turned; of every image token (2 x 2 patches) its four
           characters, place, number, middle and turn, and, through the language model's own tied embedding, which
           characters and place words it holds: a token of a card with "7" points where the word "7" points. Where in
           the picture the card lies it says aloud, in three directions of its own: what looks at image tokens later
           (the action expert) learns from few demonstrations to read it
  align_sheets  the same, with sheets beside the scenes, of which only the characters are asked
A whole scene and its dialogue teach a new tower next to nothing (the loss of a few written words reaches 352 patches);
dense labels do it in minutes. The heads are thrown away.
Tensors: P patches of all images, in the processor's order; M image tokens; W vision width; V language width; C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from chatvla_policy.model.batch import to_device
from chatvla_policy.model.loss import LossTerms
from chatvla_policy.processing.images import ImageConfig, ImagePreparer
from chatvla_training.objectives import Built, CollateFunction
from chatvla_training.scene_labels import SceneLabels, merge_order, scene_labels, token_aims
from chatvla_training.synthetic.sheets import CHARACTERS, SIZE_PX, Sheet
from chatvla_training.synthetic.sources import Page
from chatvla_training.tied_words import PLACES, TENS, UNITS, tied_words
from chatvla_training.trainer.task import TrainingTask

__all__ = [
    "AIM_WEIGHT",
    "DenseBatch",
    "DenseTask",
    "aim_distance",
    "align",
    "align_sheets",
    "aloud_directions",
    "glyphs",
    "scene_labels",
]

TIED_SCALE, TIED_COSINE = 16.0, 0.3
"""An image token says a word when its cosine to the word's embedding is above TIED_COSINE."""
TIED_WEIGHT = 0.3
"""Of one word in the loss of a token."""
SPOKEN_WEIGHT, NUMBER_SHARE, SILENT_WEIGHT = 4.0, 2.0, 0.05
"""Of a token's distance from the sum of its words; how often the number counts in that sum; of tokens without words."""
AIM_WEIGHT = 2.0
"""Of where a card lies, in patches, and how it is turned: an arm that grips it must know to a fifth of one, 5 mm."""
SPREAD = (3.5, 0.7, 0.5)
"""Patches across and down, and TURN_RAD, that make one unit in an image token: cards lie that far apart, and a unit is
as much as a token's other numbers are."""
SCENE_ROWS, SCENE_COLUMNS = 32, 32
"""Most rows and columns of patches that have labels of their own."""


@dataclass(frozen=True, kw_only=True)
class DenseBatch(SceneLabels):
    """Patches of all pictures, with labels."""

    pixel_values_PX: Tensor
    grid_thw_N3: Tensor


class DenseHeads(nn.Module):
    """The vision tower with linear heads on patches and, for `align`, on image tokens."""

    def __init__(self, built: Built, *, tokens: bool) -> None:
        super().__init__()
        model = built.start.model
        self.visual = model.backbone.model.visual
        width = model.config.backbone.vision.width
        self.characters = nn.Linear(width, 1 + len(CHARACTERS))
        self.tokens = tokens
        if not tokens:
            return
        language = model.config.backbone.text.width
        self.places = nn.Linear(width, 1 + len(PLACES))
        self.tens, self.units = nn.Linear(width, TENS), nn.Linear(width, UNITS)
        self.rows, self.columns = nn.Linear(width, SCENE_ROWS), nn.Linear(width, SCENE_COLUMNS)
        self.aims, self.merged_aims = nn.Linear(width, 3), nn.Linear(language, 3)
        self.register_buffer("aloud_3V", aloud_directions(language), persistent=False)
        self.merged_characters = nn.Linear(language, 4 * (1 + len(CHARACTERS)))
        self.merged_places = nn.Linear(language, 1 + len(PLACES))
        self.merged_tens, self.merged_units = nn.Linear(language, TENS), nn.Linear(language, UNITS)
        # Held by a tuple: the words stay as they are, and where they are, while the image tokens move towards them.
        self._embedding = (model.backbone.get_input_embeddings(),)
        self.words = tied_words(built.start.codec)

    def forward(self, batch: DenseBatch, *, generator: torch.Generator | None = None) -> LossTerms:
        """Return the summed loss over the heads, as a loss per patch."""
        out = self.visual(batch.pixel_values_PX, batch.grid_thw_N3)
        patches_PW = out.last_hidden_state
        # Of sheets nothing but characters is known. Their mean stands beside the scenes', in which digits are few.
        scene_P = batch.places_P >= 0
        loss = patches_PW.new_zeros(())
        for part_P in (scene_P, ~scene_P):
            if part_P.any():
                loss = loss + _entropy(self.characters(patches_PW[part_P]), batch.characters_P[part_P])
        if self.tokens:
            loss = loss + _entropy(self.places(patches_PW), batch.places_P)
            loss = (
                loss + _entropy(self.tens(patches_PW), batch.tens_P) + _entropy(self.units(patches_PW), batch.units_P)
            )
            loss = loss + 0.3 * _entropy(self.rows(patches_PW), batch.rows_P)
            loss = loss + 0.3 * _entropy(self.columns(patches_PW), batch.columns_P)
            loss = loss + AIM_WEIGHT * aim_distance(self.aims(patches_PW), batch.aims_P3)
            loss = loss + self._token_loss(out.pooler_output, batch, scene_P.view(-1, 4)[:, 0])
        return patch_loss(loss, len(batch.characters_P))

    def _token_loss(self, tokens_MV: Tensor, batch: DenseBatch, scene_M: Tensor) -> Tensor:
        embedding_TV = self._embedding[0].weight.detach().to(tokens_MV.device)
        tokens_MV, size = at_one_size(tokens_MV[scene_M], embedding_TV)
        characters_M4, places_M4 = batch.characters_P.view(-1, 4)[scene_M], batch.places_P.view(-1, 4)[scene_M]
        place_M = places_M4.max(1).values
        tens_M, units_M = (part.view(-1, 4)[scene_M].max(1).values for part in (batch.tens_P, batch.units_P))
        logits_M4C = self.merged_characters(tokens_MV).view(len(tokens_MV), 4, -1)
        loss = _entropy(logits_M4C.flatten(0, 1), characters_M4.flatten())
        loss = loss + _entropy(self.merged_places(tokens_MV), place_M)
        loss = loss + _entropy(self.merged_tens(tokens_MV), tens_M) + _entropy(self.merged_units(tokens_MV), units_M)
        loss = loss + AIM_WEIGHT * aim_distance(self.merged_aims(tokens_MV), token_aims(batch.aims_P3)[scene_M])
        spread_3 = torch.tensor(SPREAD, device=tokens_MV.device)
        said_M3 = functional.linear(tokens_MV.float(), self.aloud_3V) * spread_3
        loss = loss + AIM_WEIGHT * aim_distance(said_M3, batch.lying_M3[scene_M])
        words, device = self.words, tokens_MV.device
        target_MS, number_MS = words.said_by(characters_M4, place_M, tens_M, units_M)
        speaks_M = target_MS.sum(1) > 0
        target_MS = target_MS + words.image_S.to(device)
        words_SV = embedding_TV[words.ids_S.to(device)]
        tied = tied_loss(tokens_MV, words_SV, target_MS)
        aside = spoken_loss(tokens_MV, words_SV, target_MS + (NUMBER_SHARE - 1) * number_MS, speaks_M)
        return loss + TIED_WEIGHT * len(words.ids_S) * tied + SPOKEN_WEIGHT * aside + 0.1 * size


def patch_loss(loss: Tensor, patches: int) -> LossTerms:
    """Return a mean over `patches` as the loop's language loss; no action, no router."""
    zero = loss.detach().new_zeros(())
    return LossTerms(
        language_sum=loss * patches,
        language_tokens=patches,
        action_sum=zero,
        action_steps=0,
        router=zero,
        action_weight=1.0,
    )


def at_one_size(tokens_MV: Tensor, words_TV: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image tokens as the language model's first layer sees them, and how far from a word's length they are.

    `words_TV` are the embeddings of all words.
    """
    length = words_TV.detach().norm(dim=1).mean()
    norm_M = tokens_MV.norm(dim=1).clamp_min(1e-6)
    return tokens_MV * (tokens_MV.shape[1] ** 0.5 / norm_M)[:, None], (norm_M / length).log().square().mean()


def tied_loss(tokens_MV: Tensor, words_SV: Tensor, target_MS: Tensor) -> Tensor:
    """Return how far tokens (from `at_one_size`) are from pointing at just the words that `target_MS` marks."""
    words_SV = functional.normalize(words_SV - words_SV.mean(0), dim=1)
    cosine_MS = tokens_MV @ words_SV.T / tokens_MV.shape[1] ** 0.5
    logits_MS = TIED_SCALE * (cosine_MS.float() - TIED_COSINE)
    return functional.binary_cross_entropy_with_logits(logits_MS, target_MS.clamp(max=1.0))


def spoken_loss(tokens_MV: Tensor, words_SV: Tensor, shares_MS: Tensor, speaks_M: Tensor) -> Tensor:
    """Return 1 minus the mean cosine of tokens (from `at_one_size`) to the sum of what they say, by `shares_MS`.

    Tokens outside `speaks_M` say no more than that they are of an image, and count SILENT_WEIGHT.
    """
    sums_MV = shares_MS @ functional.normalize(words_SV - words_SV.mean(0), dim=1)
    cosine_M = functional.cosine_similarity(tokens_MV.float(), sums_MV.float(), dim=1)
    weight_M = torch.where(speaks_M, 1.0, SILENT_WEIGHT)
    return 1 - (cosine_M * weight_M).sum() / weight_M.sum()


def _entropy(logits_PC: Tensor, labels_P: Tensor) -> Tensor:
    return functional.cross_entropy(logits_PC.float(), labels_P, ignore_index=-1)


def aim_distance(found_NK: Tensor, aims_NK: Tensor) -> Tensor:
    """Return the mean distance from the aims that are known; 0 when none is."""
    known_NK = ~aims_NK.isnan()
    apart_NK = (found_NK.float() - aims_NK.nan_to_num()).abs() * known_NK
    return apart_NK.sum() / known_NK.sum().clamp_min(1)


def aloud_directions(width: int, count: int = 3) -> Tensor:
    """Return `count` directions at right angles in the space of image tokens, shape (count, V); always the same."""
    drawn_VK = torch.randn(width, count, generator=torch.Generator().manual_seed(7305))
    return torch.linalg.qr(drawn_VK).Q.T.contiguous()


class DenseTask:
    """The vision tower and its heads as the loop takes them."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def counts(self, batch: Any) -> tuple[int, int]:
        """Return the number of patches, and no chunk steps."""
        return len(batch.pixel_values_PX), 0

    def place(self, batch: Any, device: torch.device) -> Any:
        """Return the batch on `device`."""
        return to_device(batch, device)

    def action_error(self, batch: Any, generator: torch.Generator) -> Mapping[str, tuple[float, int]]:
        """Return nothing: no action is trained."""
        return {}


def glyphs(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return the objective of sheets (`synthetic:sheets`)."""
    return DenseTask(DenseHeads(built, tokens=False)), SheetCollate(built.start.model.config.images)


class SheetCollate:
    """Sheets to batches."""

    def __init__(self, config: ImageConfig) -> None:
        self._images = ImagePreparer(replace(config, width=SIZE_PX, height=SIZE_PX))

    def __call__(self, sheets: Sequence[Sheet]) -> DenseBatch:
        """Return the batch of `sheets`."""
        prepared = self._images([sheet.image for sheet in sheets])
        characters_P = torch.cat([merge_order(sheet.characters) for sheet in sheets])
        unknown_P = torch.full_like(characters_P, -1)
        return DenseBatch(
            pixel_values_PX=prepared.pixel_values_PX,
            grid_thw_N3=prepared.grid_thw_N3,
            characters_P=characters_P,
            places_P=unknown_P,
            tens_P=unknown_P,
            units_P=unknown_P,
            rows_P=unknown_P,
            columns_P=unknown_P,
            aims_P3=torch.full((len(characters_P), 3), torch.nan),
            lying_M3=torch.full((len(characters_P) // 4, 3), torch.nan),
        )


def align(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return the objective of labelled scenes (`synthetic:labelled`)."""
    return DenseTask(DenseHeads(built, tokens=True)), SceneCollate(built.start.model.config.images)


def align_sheets(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return the objective of labelled scenes beside sheets (`synthetic:pages`)."""
    return DenseTask(DenseHeads(built, tokens=True)), PageCollate(built.start.model.config.images)


class SceneCollate:
    """Labelled scenes to batches."""

    def __init__(self, config: ImageConfig) -> None:
        self._images = ImagePreparer(config)

    def __call__(self, scenes: Sequence[Any]) -> DenseBatch:
        """Return the batch of `scenes` (synthetic.pool.Scene)."""
        prepared = self._images([scene.image for scene in scenes])
        labels = [
            scene_labels(scene, placement, grid)
            for scene, placement, grid in zip(scenes, prepared.placements, prepared.grid_thw_N3.tolist(), strict=True)
        ]
        joined = {
            field.name: torch.cat([getattr(part, field.name) for part in labels]) for field in fields(SceneLabels)
        }
        return DenseBatch(pixel_values_PX=prepared.pixel_values_PX, grid_thw_N3=prepared.grid_thw_N3, **joined)


class PageCollate:
    """Labelled scenes with sheets to batches: scenes first."""

    def __init__(self, config: ImageConfig) -> None:
        self._scenes, self._sheets = SceneCollate(config), SheetCollate(config)

    def __call__(self, pages: Sequence[Page]) -> DenseBatch:
        """Return the batch of `pages`."""
        parts = (
            self._scenes([page.scene for page in pages]),
            self._sheets([sheet for page in pages for sheet in page.sheets]),
        )
        return DenseBatch(
            **{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(DenseBatch)}
        )
