# SPDX-License-Identifier: Apache-2.0
"""Teach a new vision tower what each part of a toy scene shows and where that thing ends, before any language.

  objects        crowds: kind, colour and rectangle of the thing that each patch shows, row and column of the patch
  objects_align  tables as in trials: the same of every image token (2 x 2 patches), and, through the language model's
                 own tied embedding, the words for it: a token that shows a red car points where the words "red" and
                 "car" and the numbers of its rectangle's four sides point (toy_words.py)
What the language model has to write about a thing it then finds in an image token as it finds it in a text; it is read,
not computed with. Middle and size of the rectangle and the thing's turn a token says aloud, too, in five directions of
its own, for the action expert.
The heads are thrown away. See dense_objectives.py for why dense labels come first.
Tensors: P patches of all images, in the processor's order; M image tokens; W vision width; V language width; C classes;
S words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from chatvla_policy.model.loss import LossTerms
from chatvla_policy.processing.images import ImageConfig, ImagePreparer
from chatvla_sim.toy_placement.reasoning import IMAGE_SIZE, SIDE_STEPS
from chatvla_sim.toy_placement.visibility import STEP_PX
from chatvla_training.dense_objectives import (
    AIM_WEIGHT,
    SCENE_COLUMNS,
    SCENE_ROWS,
    SPOKEN_WEIGHT,
    TIED_SCALE,
    TIED_WEIGHT,
    DenseTask,
    aim_distance,
    aloud_directions,
    at_one_size,
    patch_loss,
    spoken_loss,
    tied_loss,
)
from chatvla_training.objectives import Built, CollateFunction
from chatvla_training.scene_labels import merge_order
from chatvla_training.synthetic.toy_facts import scene_boxes
from chatvla_training.synthetic.toy_pool import ToyScene
from chatvla_training.toy_words import COLOUR_NAMES, KIND_NAMES, side_steps, toy_words
from chatvla_training.trainer.task import TrainingTask

__all__ = [
    "SPREAD",
    "ToyBatch",
    "ToyCollate",
    "ToyLabels",
    "lying",
    "objects",
    "objects_align",
    "patch_labels",
    "token_labels",
]

BACKGROUND_WEIGHT = 0.2
"""Weight of patches that show no thing: they are nine of ten."""
POINTS = 3
"""A patch is looked at in so many rows and columns of points."""
LEAST_POINTS = 3
"""So many of them must show a thing for the patch to carry its label."""
SIDE_WEIGHT = 0.25
"""Of one side's number in the loss of a token."""
NEAR = 1.0
"""How far from the right number a number still counts as right, in its places."""
SPREAD = (0.2, 0.15, 0.05, 0.05, 0.3)
"""Shares of the picture across and down, of a middle and of a size, and radians of a turn, that make one unit in an
image token."""


@dataclass(frozen=True, kw_only=True)
class ToyLabels:
    """Labels of patches or of image tokens: 0 or 1 + class of kind and colour; what is known of the thing in view."""

    kinds_P: Tensor
    colours_P: Tensor
    boxes_P4: Tensor
    """x_min, y_min, x_max, y_max as shares of the picture's width and height; zeros where no thing is seen."""
    turns_P: Tensor
    """Yaw [rad]; zero where no thing is seen."""


@dataclass(frozen=True, kw_only=True)
class ToyBatch(ToyLabels):
    """Patches of all pictures, with labels."""

    pixel_values_PX: Tensor
    grid_thw_N3: Tensor
    rows_P: Tensor
    columns_P: Tensor


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
        self.register_buffer("aloud_5V", aloud_directions(language, 5), persistent=False)
        # Held by a tuple: the words stay as they are, and where they are, while the image tokens move towards them.
        self._embedding = (model.backbone.get_input_embeddings(),)
        self.words = toy_words(built.start.codec)

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
        embedding_TV = self._embedding[0].weight.detach().to(tokens_MV.device)
        tokens_MV, size = at_one_size(tokens_MV, embedding_TV)
        shown = token_labels(batch)
        kinds_M, boxes_M4 = shown.kinds_P, shown.boxes_P4
        loss = _named(self.token_kinds(tokens_MV), kinds_M) + _named(self.token_colours(tokens_MV), shown.colours_P)
        loss = loss + _placed(self.token_boxes(tokens_MV), boxes_M4, kinds_M)
        said_M5 = functional.linear(tokens_MV.float(), self.aloud_5V)
        loss = loss + AIM_WEIGHT * aim_distance(said_M5, lying(shown))
        words, device = self.words, tokens_MV.device
        words_SV = embedding_TV[words.ids_S.to(device)]
        shares_MS = words.shares(kinds_M, shown.colours_P, boxes_M4)
        names_MS = (shares_MS[:, : words.named] > 0).float()
        tied = tied_loss(tokens_MV, words_SV[: words.named], names_MS)
        aside = spoken_loss(tokens_MV, words_SV, shares_MS, kinds_M > 0)
        sides = _side_loss(tokens_MV, words_SV[words.named :], side_steps(boxes_M4), kinds_M > 0)
        loss = loss + TIED_WEIGHT * words.named * tied + SPOKEN_WEIGHT * aside + SIDE_WEIGHT * sides
        return loss + 0.1 * size


def token_labels(labels: ToyLabels) -> ToyLabels:
    """Return what image tokens show, M of them: what the first of a token's patches that shows a thing shows."""
    chosen_M = (labels.kinds_P.view(-1, 4) > 0).int().argmax(1)
    index_M = torch.arange(len(chosen_M), device=chosen_M.device) * 4 + chosen_M
    return ToyLabels(
        kinds_P=labels.kinds_P[index_M],
        colours_P=labels.colours_P[index_M],
        boxes_P4=labels.boxes_P4[index_M],
        turns_P=labels.turns_P[index_M],
    )


def _side_loss(tokens_MV: Tensor, words_NV: Tensor, steps_M4: Tensor, shown_M: Tensor) -> Tensor:
    """Return the summed loss of which number of each side a token (from `at_one_size`) is most like.

    `words` are the embeddings of all sides' numbers; numbers next to the right one count in part.
    """
    if not bool(shown_M.any()):
        return tokens_MV.sum() * 0.0
    words_4NV = functional.normalize(words_NV, dim=1).unflatten(0, (4, SIDE_STEPS))
    found_MV = tokens_MV[shown_M] / tokens_MV.shape[1] ** 0.5
    logits_M4N = TIED_SCALE * torch.einsum("mv,snv->msn", found_MV, words_4NV).float()
    apart_M4N = torch.arange(SIDE_STEPS, device=tokens_MV.device) - steps_M4[shown_M][..., None]
    wanted_M4N = torch.softmax(-(apart_M4N**2) / (2 * NEAR**2), dim=-1)
    return -(wanted_M4N * logits_M4N.log_softmax(-1)).sum((1, 2)).mean()


def lying(shown: ToyLabels) -> Tensor:
    """Return middle (right, down of the picture's), size and turn of each token's thing, in units of SPREAD, (M, 5).

    NaN where no thing is in view.
    """
    boxes_M4 = shown.boxes_P4
    low_M2, high_M2 = boxes_M4[:, :2], boxes_M4[:, 2:]
    known_M5 = torch.cat([(low_M2 + high_M2) / 2 - 0.5, high_M2 - low_M2, shown.turns_P[:, None]], dim=1)
    lying_M5 = known_M5 / torch.tensor(SPREAD).to(boxes_M4)
    return torch.where(shown.kinds_P[:, None] > 0, lying_M5, torch.nan)


def _named(logits_PC: Tensor, labels_P: Tensor) -> Tensor:
    weight_C = torch.ones(logits_PC.shape[1], device=logits_PC.device)
    weight_C[0] = BACKGROUND_WEIGHT
    return functional.cross_entropy(logits_PC.float(), labels_P, weight=weight_C)


def _placed(boxes_P4: Tensor, wanted_P4: Tensor, kinds_P: Tensor) -> Tensor:
    """Return the mean distance of the rectangles' sides, tens of thousandths, over what shows a thing."""
    shown_P1 = (kinds_P > 0).float()[:, None]
    distance_P4 = functional.smooth_l1_loss(boxes_P4.float(), wanted_P4, reduction="none", beta=0.01) * shown_P1
    return 10 * distance_P4.sum() / (4 * shown_P1.sum()).clamp_min(1.0)


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
        grids = prepared.grid_thw_N3.tolist()
        parts = [patch_labels(scene, grid[1], grid[2]) for scene, grid in zip(scenes, grids, strict=True)]
        joined = {field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(ToyLabels)}
        places = [merge_order(np.moveaxis(np.indices(grid[1:3]), 0, -1)) for grid in grids]
        rows_P, columns_P = torch.cat(places).unbind(1)
        return ToyBatch(
            pixel_values_PX=prepared.pixel_values_PX,
            grid_thw_N3=prepared.grid_thw_N3,
            rows_P=rows_P,
            columns_P=columns_P,
            **joined,
        )


def patch_labels(scene: ToyScene, rows: int, columns: int) -> ToyLabels:
    """Return what the rows x columns patches of `scene` show, in the processor's order."""
    things = thing_map(scene, rows, columns)
    names = [thing.label.split(" ", 1) for thing in scene.trial.things]
    kinds = np.array([0, *(1 + KIND_NAMES.index(kind) for _, kind in names)])
    colours = np.array([0, *(1 + COLOUR_NAMES.index(colour) for colour, _ in names)])
    sides = np.array([*IMAGE_SIZE, *IMAGE_SIZE], float)
    boxes, turns = np.zeros((1 + len(names), 4), np.float32), np.zeros(1 + len(names), np.float32)
    for number, box in enumerate(scene_boxes(scene)):
        if box is not None:
            boxes[1 + number] = np.array(box) / sides
    turns[1:] = scene.poses[:, 3]
    return ToyLabels(
        kinds_P=merge_order(kinds[things]),
        colours_P=merge_order(colours[things]),
        boxes_P4=merge_order(boxes[things]),
        turns_P=merge_order(turns[things]),
    )


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
