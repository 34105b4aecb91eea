# SPDX-License-Identifier: Apache-2.0
"""Teach a new language model to speak about toys before its vision tower sees: image tokens made of words.

As imagined_objective.py, with what image tokens of toy scenes say (toy_words.py); each token says what
`objects_align` turns it towards.
"""

from __future__ import annotations

from torch import Tensor

from chatvla_training.data.samples import ChatSample
from chatvla_training.imagined_objective import ImaginedCollate, ImaginedTask
from chatvla_training.objectives import Built, CollateFunction
from chatvla_training.toy_objectives import patch_labels, token_labels
from chatvla_training.toy_words import ToyWords, toy_words
from chatvla_training.trainer.task import TrainingTask

__all__ = ["ToyImaginedCollate", "objects_imagined", "objects_imagined_clearly"]

CLEAR = 0.8
"""Least cosine between a token and the sum of its words for `objects_imagined_clearly`."""


def objects_imagined(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return the objective of `synthetic:toys_imagined` and its like."""
    words = toy_words(built.start.codec)
    return ImaginedTask(built.start.model, words), ToyImaginedCollate(built, words)


def objects_imagined_clearly(built: Built) -> tuple[TrainingTask, CollateFunction]:
    """Return the same with little noise: to find things at all is learned sooner so."""
    words = toy_words(built.start.codec)
    return ImaginedTask(built.start.model, words, faintest=CLEAR), ToyImaginedCollate(built, words)


class ToyImaginedCollate(ImaginedCollate):
    """Samples with toy scenes."""

    def __init__(self, built: Built, words: ToyWords) -> None:
        super().__init__(built)
        self._words = words

    def shares(self, sample: ChatSample) -> Tensor:
        """Return how much of each word each image token of `sample` says, shape (M, S)."""
        _, rows, columns = self.prepared(sample).grid_thw_N3.tolist()[0]
        shown = token_labels(patch_labels(sample.extras["scene"], rows, columns))
        return self._words.shares(shown.kinds_P, shown.colours_P, shown.boxes_P4)
