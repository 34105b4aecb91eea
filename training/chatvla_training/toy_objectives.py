# SPDX-License-Identifier: Apache-2.0
"""Teach a new vision tower what each part of a toy scene shows and where that thing ends, before any language.

  objects        crowds: kind, colour and rectangle of the thing that each patch shows, row and column of the patch
  objects_align  tables as in trials: the same of every image token (2 x 2 patches), the digits of the rectangle, and,
                 through the language model's own tied embedding, the words that name the thing: a token that shows a
                 red car points where the words "red" and "car" point
The digits are what the language model has to write about a thing: a token that holds them is read, not computed with.
Middle and size of the rectangle a token says aloud, too, in four directions of its own, for the action expert.
The heads are thrown away. See dense_objectives.py for why dense labels come first.
Tensors: P patches of all images, in the processor's order; M image tokens; W vision width; V language width; C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from chatvla_policy.model.loss import LossTerms
from chatvla_policy.processing.images import ImageConfig, ImagePreparer
from chatvla_policy.processing.tokens import TextCodec
from chatvla_sim.toy_placement.objects import COLOURS, kind_of
from chatvla_sim.toy_placement.reasoning import IMAGE_SIZE
from chatvla_sim.toy_placement.visibility import STEP_PX
from chatvla_training.dense_objectives import (
    AIM_WEIGHT,
    SCENE_COLUMNS,
    SCENE_ROWS,
    DenseTask,
    aim_distance,
    aloud_directions,
    at_one_size,
    patch_loss,
    tied_loss,
)
from chatvla_training.objectives import Built, CollateFunction
from chatvla_training.scene_labels import merge_order
from chatvla_training.synthetic.toy_facts import scene_boxes
from chatvla_training.synthetic.toy_pool import ToyScene
from chatvla_training.synthetic.toy_trials import image_text_labels
from chatvla_training.trainer.task import TrainingTask

__all__ = ["KIND_NAMES", "SPREAD", "ToyBatch", "ToyCollate", "lying", "objects", "objects_align"]

KIND_NAMES = tuple(dict.fromkeys(kind_of(label) for toys in (True, False) for label in image_text_labels(toys=toys)))
"""Kinds that image-text data may show, in the order of their classes."""
COLOUR_NAMES = tuple(COLOURS)
BACKGROUND_WEIGHT = 0.2
"""Weight of patches that show no thing: they are nine of ten."""
POINTS = 3
"""A patch is looked at in so many rows and columns of points."""
LEAST_POINTS = 3
"""So many of them must show a thing for the patch to carry its label."""
DIGITS = 10
SPREAD = (0.2, 0.15, 0.05, 0.05)
"""Shares of the picture across and down, of a middle and of a size, that make one unit in an image token."""


@dataclass(frozen=True, kw_only=True)
class ToyBatch:
    """Patches with labels: 0 or 1 + class of kind and colour; the rectangle of the thing in view, 0 to 1."""

    pixel_values_PX: Tensor
    grid_thw_N3: Tensor
    kinds_P: Tensor
    colours_P: Tensor
    rows_P: Tensor
    columns_P: Tensor
    boxes_P4: Tensor
    """x_min, y_min, x_max, y_max as shares of the picture's width and height; zeros where no thing is seen."""


class ToyHeads(nn.Module):
    """The vision tower with linear heads on patches and, for `objects_align`, on image tokens."""

    def __init__(self, built: Built, *, tokens: bool) -> None:
        super().__init__()
        model = built.start.model
        self.visual = model.backbone.model.visual
        width = model.config.backbone.vision.width
        self.kinds = nn.Linear(width, 1 + len(KIND_NAMES))
        self.colours = nn.Linear(width, 1 + len(COLOUR_NAMES))
        self.rows, self.columns = nn.Linear(width, SCENE_ROWS), nn.Linear(width, SCENE_COLUMNS)
        self.boxes = nn.Linear(width, 4)
        self.tokens = tokens
        if not tokens:
            return
        language = model.config.backbone.text.width
        self.token_kinds = nn.Linear(language, 1 + len(KIND_NAMES))
        self.token_colours = nn.Linear(language, 1 + len(COLOUR_NAMES))
        self.token_boxes = nn.Linear(language, 4)
        self.token_digits = nn.Linear(language, 4 * 2 * DIGITS)
        self.register_buffer("aloud_4V", aloud_directions(language, 4), persistent=False)
        # Held by a tuple: the words stay as they are while the image tokens move towards them.
        self._embedding = (model.backbone.get_input_embeddings(),)
        self.words, self.word_kinds, self.word_colours = tied_object_words(built.start.codec)

    def forward(self, batch: ToyBatch, *, generator: torch.Generator | None = None) -> LossTerms:
        """Return the summed loss over the heads, as a loss per patch."""
        out = self.visual(batch.pixel_values_PX, batch.grid_thw_N3)
        patches_PW = out.last_hidden_state
        loss = _named(self.kinds(patches_PW), batch.kinds_P) + _named(self.colours(patches_PW), batch.colours_P)
        loss = loss + 0.3 * functional.cross_entropy(self.rows(patches_PW).float(), batch.rows_P)
        loss = loss + 0.3 * functional.cross_entropy(self.columns(patches_PW).float(), batch.columns_P)
        loss = loss + _placed(self.boxes(patches_PW), batch.boxes_P4, batch.kinds_P)
        if self.tokens:
            loss = loss + self._token_loss(out.pooler_output, batch)
        return patch_loss(loss, len(batch.kinds_P))

    def _token_loss(self, tokens_MV: Tensor, batch: ToyBatch) -> Tensor:
        tokens_MV, size = at_one_size(tokens_MV, self._embedding[0].weight)
        # A token says what the first of its patches that shows a thing shows.
        chosen_M = (batch.kinds_P.view(-1, 4) > 0).int().argmax(1)
        index_M = torch.arange(len(chosen_M), device=chosen_M.device) * 4 + chosen_M
        kinds_M, colours_M, boxes_M4 = batch.kinds_P[index_M], batch.colours_P[index_M], batch.boxes_P4[index_M]
        loss = _named(self.token_kinds(tokens_MV), kinds_M) + _named(self.token_colours(tokens_MV), colours_M)
        loss = loss + _placed(self.token_boxes(tokens_MV), boxes_M4, kinds_M)
        loss = loss + 0.5 * self._digit_loss(tokens_MV, boxes_M4, kinds_M)
        said_M4 = functional.linear(tokens_MV.float(), self.aloud_4V)
        loss = loss + AIM_WEIGHT * aim_distance(said_M4, lying(boxes_M4, kinds_M))
        return loss + 8 * self._tied(tokens_MV, kinds_M, colours_M) + 0.1 * size

    def _digit_loss(self, tokens_MV: Tensor, boxes_M4: Tensor, kinds_M: Tensor) -> Tensor:
        """Return the loss of the rectangle's first two digits in thousandths, zero where no thing is in view."""
        thousandths_M4 = (boxes_M4 * 1000).round().long().clamp(0, 999)
        digits_M42 = torch.stack([thousandths_M4 // 100, thousandths_M4 // 10 % 10], dim=-1)
        wanted_M42 = torch.where(kinds_M[:, None, None] > 0, digits_M42, -1)
        if not bool((wanted_M42 >= 0).any()):
            return tokens_MV.sum() * 0.0
        logits = self.token_digits(tokens_MV).view(-1, DIGITS).float()
        return functional.cross_entropy(logits, wanted_M42.flatten(), ignore_index=-1)

    def _tied(self, tokens_MV: Tensor, kinds_M: Tensor, colours_M: Tensor) -> Tensor:
        """Return how far the tokens are from pointing at just the words that name what they show."""
        device = tokens_MV.device
        kind_MC = functional.one_hot(kinds_M, 1 + len(KIND_NAMES))[:, 1:].float()
        colour_MC = functional.one_hot(colours_M, 1 + len(COLOUR_NAMES))[:, 1:].float()
        target_MS = kind_MC @ self.word_kinds.to(device) + colour_MC @ self.word_colours.to(device)
        return tied_loss(tokens_MV, self._embedding[0].weight.detach()[self.words.to(device)], target_MS)


def lying(boxes_M4: Tensor, kinds_M: Tensor) -> Tensor:
    """Return middle (right, down of the picture's) and size of each rectangle, in units of SPREAD, shape (M, 4).

    NaN where no thing is in view.
    """
    low_M2, high_M2 = boxes_M4[:, :2], boxes_M4[:, 2:]
    lying_M4 = torch.cat([(low_M2 + high_M2) / 2 - 0.5, high_M2 - low_M2], dim=1) / torch.tensor(SPREAD).to(boxes_M4)
    return torch.where(kinds_M[:, None] > 0, lying_M4, torch.nan)


def _named(logits_PC: Tensor, labels_P: Tensor) -> Tensor:
    weight_C = torch.ones(logits_PC.shape[1], device=logits_PC.device)
    weight_C[0] = BACKGROUND_WEIGHT
    return functional.cross_entropy(logits_PC.float(), labels_P, weight=weight_C)


def _placed(boxes_P4: Tensor, wanted_P4: Tensor, kinds_P: Tensor) -> Tensor:
    """Return the mean distance of the rectangles' sides, tens of thousandths, over what shows a thing."""
    shown_P1 = (kinds_P > 0).float()[:, None]
    distance_P4 = functional.smooth_l1_loss(boxes_P4.float(), wanted_P4, reduction="none", beta=0.01) * shown_P1
    return 10 * distance_P4.sum() / (4 * shown_P1.sum()).clamp_min(1.0)


def tied_object_words(codec: TextCodec) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids of the words that image tokens are tied to, shape (S,), and which kind and colour each belongs to.

    The two maps have shapes (kinds, S) and (colours, S). A word that is several tokens is left out.
    """
    ids: list[int] = []
    names: list[str] = []
    for name in (*KIND_NAMES, *COLOUR_NAMES):
        for text in (name, f" {name}"):
            token = codec.plain(text)
            if len(token) == 1 and token[0] not in ids:
                ids.append(token[0])
                names.append(name)
    kinds, colours = (
        torch.tensor([[float(word == name) for word in names] for name in known])
        for known in (KIND_NAMES, COLOUR_NAMES)
    )
    return torch.tensor(ids), kinds, colours


def objects(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return the objective of crowds (`synthetic:toys_crowds`)."""
    return DenseTask(ToyHeads(built, tokens=False)), ToyCollate(built.start.model.config.images)


def objects_align(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return the objective of labelled tables (`synthetic:toys_labelled`)."""
    return DenseTask(ToyHeads(built, tokens=True)), ToyCollate(built.start.model.config.images)


class ToyCollate:
    """Toy scenes to batches."""

    def __init__(self, config: ImageConfig) -> None:
        self._images = ImagePreparer(config)

    def __call__(self, scenes: Sequence[ToyScene]) -> ToyBatch:
        """Return the batch of `scenes`."""
        prepared = self._images([scene.image for scene in scenes])
        parts = [
            patch_labels(scene, grid[1], grid[2])
            for scene, grid in zip(scenes, prepared.grid_thw_N3.tolist(), strict=True)
        ]
        kinds, colours, rows, columns = (torch.cat([merge_order(part[k]) for part in parts]) for k in range(4))
        boxes = torch.cat(
            [torch.stack([merge_order(part[4][..., side]) for side in range(4)], dim=1) for part in parts]
        )
        return ToyBatch(
            pixel_values_PX=prepared.pixel_values_PX,
            grid_thw_N3=prepared.grid_thw_N3,
            kinds_P=kinds,
            colours_P=colours,
            rows_P=rows,
            columns_P=columns,
            boxes_P4=boxes.float(),
        )


Labels = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def patch_labels(scene: ToyScene, rows: int, columns: int) -> Labels:
    """Return kinds, colours, rows and columns, shape (rows, columns), and rectangles, shape (rows, columns, 4)."""
    things = thing_map(scene, rows, columns)
    names = [thing.label.split(" ", 1) for thing in scene.trial.things]
    kinds = np.array([0, *(1 + KIND_NAMES.index(kind) for _, kind in names)])
    colours = np.array([0, *(1 + COLOUR_NAMES.index(colour) for colour, _ in names)])
    sides = np.array([*IMAGE_SIZE, *IMAGE_SIZE], float)
    boxes = np.zeros((1 + len(names), 4))
    for number, box in enumerate(scene_boxes(scene)):
        if box is not None:
            boxes[1 + number] = np.array(box) / sides
    row_index, column_index = np.indices((rows, columns))
    return kinds[things], colours[things], row_index, column_index, boxes[things]


def thing_map(scene: ToyScene, rows: int, columns: int) -> NDArray[np.int64]:
    """Return 0, or 1 + the number of the thing that most of a patch's points show, shape (rows, columns)."""
    height, width = scene.image.shape[:2]
    y = (np.arange(rows * POINTS) + 0.5) * height / (rows * POINTS) - scene.shift_px[1]
    x = (np.arange(columns * POINTS) + 0.5) * width / (columns * POINTS) - scene.shift_px[0]
    row = np.clip((y / STEP_PX).astype(int), 0, scene.seen.shape[0] - 1)
    column = np.clip((x / STEP_PX).astype(int), 0, scene.seen.shape[1] - 1)
    points = scene.seen[np.ix_(row, column)].reshape(rows, POINTS, columns, POINTS)
    votes = np.stack([(points == 1 + k).sum(axis=(1, 3)) for k in range(len(scene.trial.things))])
    best = votes.argmax(0)
    return np.where(votes.max(0) >= LEAST_POINTS, 1 + best, 0)
