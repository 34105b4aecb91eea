# SPDX-License-Identifier: Apache-2.0
"""Say which words of the vocabulary an image token of the toy bench can show: kinds, colours, sides of rectangles.

What an image token shows a thing of says the thing's kind and colour, each with and without a space before it, the four
sides of its rectangle, and that it shows a thing at all; every image token says that it is of an image. The word for a
thing is a control token that no text holds, so nothing but image tokens is like it.
Tensors: M image tokens; S words; C kinds or colours; N places of a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from chatvla_policy.model.backbone import Backbone
from chatvla_policy.processing.tokens import TextCodec
from chatvla_sim.toy_placement.objects import COLOURS, kind_of
from chatvla_sim.toy_placement.reasoning import SIDE_DIGITS, SIDE_STEPS
from chatvla_training.first_weights import RECTANGLES, Layout, compose_sides, compose_words, wire_heads
from chatvla_training.synthetic.toy_trials import image_text_labels
from chatvla_training.text.toy_phrases import side_words

__all__ = ["COLOUR_NAMES", "KIND_NAMES", "ToyWords", "set_toy_weights", "side_steps", "thing_word", "toy_words"]

KIND_NAMES = tuple(dict.fromkeys(kind_of(label) for toys in (True, False) for label in image_text_labels(toys=toys)))
"""Kinds that image-text data may show, in the order of their classes."""
COLOUR_NAMES = tuple(COLOURS)
SIDES = len(SIDE_DIGITS)
LOUD = 2.0
"""How much louder than one side an image token says kind, colour and that it shows a thing at all."""


@dataclass(frozen=True, kw_only=True)
class ToyWords:
    """The words that image tokens are tied to: S token ids, names first, then the sides' numbers."""

    ids_S: Tensor
    image_S: Tensor
    """The word that stands for an image in a prompt."""
    thing_S: Tensor
    kinds_CS: Tensor
    """Of KIND_NAMES; the two forms of a word share what it counts."""
    colours_CS: Tensor
    """Of COLOUR_NAMES."""
    sides_4NS: Tensor
    """Of the places of left, top, right and bottom."""
    named: int
    """How many of the words are no numbers."""

    @property
    def numbers_NS(self) -> Tensor:  # noqa: N802
        """What an image token may say though it is not there, one word a row."""
        return torch.cat([(self.kinds_CS > 0).float(), (self.colours_CS > 0).float(), self.sides_4NS.flatten(0, 1)])

    def shares(self, kinds_M: Tensor, colours_M: Tensor, boxes_M4: Tensor) -> Tensor:
        """Return how much of each word the image tokens say, shape (M, S).

        `kinds` and `colours` are 0 or 1 + class, `boxes` shares of the picture's width and height.
        """
        device = kinds_M.device
        kind_MC = functional.one_hot(kinds_M, 1 + len(KIND_NAMES))[:, 1:].float()
        colour_MC = functional.one_hot(colours_M, 1 + len(COLOUR_NAMES))[:, 1:].float()
        said_MS = LOUD * (kind_MC @ self.kinds_CS.to(device) + colour_MC @ self.colours_CS.to(device))
        steps_M4 = side_steps(boxes_M4)
        for side in range(SIDES):
            said_MS = said_MS + self.sides_4NS[side].to(device)[steps_M4[:, side]]
        shown_M1 = (kinds_M > 0).float()[:, None]
        return shown_M1 * (said_MS + LOUD * self.thing_S.to(device)) + self.image_S.to(device)


def side_steps(boxes_M4: Tensor) -> Tensor:
    """Return which place each side of the rectangles (shares of the picture) has, as texts round it, shape (M, 4)."""
    digits_4 = torch.tensor(SIDE_DIGITS, device=boxes_M4.device)
    return ((1000 * boxes_M4 - digits_4) / 10).round().long().clamp(0, SIDE_STEPS - 1)


def thing_word(codec: TextCodec) -> int:
    """Return the token that image tokens of things say, and no text does."""
    return codec.control("<|video_pad|>")


def toy_words(codec: TextCodec) -> ToyWords:
    """Return the words of kinds, colours and sides; a name that is several tokens is left out."""
    names = {
        name: [token[0] for form in (name, f" {name}") if len(token := codec.plain(form)) == 1]
        for name in (*KIND_NAMES, *COLOUR_NAMES)
    }
    named = [codec.image_id, thing_word(codec), *dict.fromkeys(token for tokens in names.values() for token in tokens)]
    numbers = [codec.plain(number)[0] for number in side_words()]
    ids = [*named, *numbers]

    def said(rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[(token in tokens) / max(1, len(tokens)) for token in ids] for tokens in rows])

    return ToyWords(
        ids_S=torch.tensor(ids),
        image_S=said([[codec.image_id]])[0],
        thing_S=said([[thing_word(codec)]])[0],
        kinds_CS=said([names[name] for name in KIND_NAMES]),
        colours_CS=said([names[name] for name in COLOUR_NAMES]),
        sides_4NS=said([[number] for number in numbers]).unflatten(0, (SIDES, SIDE_STEPS)),
        named=len(named),
    )


def set_toy_weights(backbone: Backbone, codec: TextCodec) -> None:
    """Give a new language model its first words and wires for toys (first_weights.py)."""
    words = side_words()
    compose_sides(backbone, codec, [words[side * SIDE_STEPS : (side + 1) * SIDE_STEPS] for side in range(SIDES)])
    compose_words(backbone, codec, (*KIND_NAMES, *COLOUR_NAMES))
    forms = [[codec.plain(form) for form in (name, f" {name}")] for name in (*KIND_NAMES, *COLOUR_NAMES)]
    layout = Layout(
        names=tuple(tuple(token[0] for token in row if len(token) == 1) for row in forms),
        numbers=tuple(
            tuple(codec.plain(word)[0] for word in words[side * SIDE_STEPS : (side + 1) * SIDE_STEPS])
            for side in range(SIDES)
        ),
        sought=1,
    )
    wire_heads(backbone, thing_word(codec), RECTANGLES, layout)
