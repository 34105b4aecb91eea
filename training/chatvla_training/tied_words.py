# SPDX-License-Identifier: Apache-2.0
"""Say which words of the vocabulary an image token of the math bench can show: numbers, operators, places of cards.

Tensors: M image tokens; S words; N numbers 0 to 109; C operators or places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from chatvla_policy.processing.tokens import TextCodec
from chatvla_training.synthetic.sheets import CHARACTERS, DIGITS

__all__ = ["PLACES", "TENS", "UNITS", "TiedWords", "tied_words"]

PLACES = ("far left", "left", "middle", "right", "far right")
PLACE_TOKENS = ("far", " far", "left", " left", "middle", " middle", "right", " right")
TENS, UNITS = 12, 10
"""Classes of a card's number: tens 0 to 10, the last class for numbers of one digit; units."""


@dataclass(frozen=True, kw_only=True)
class TiedWords:
    """The words that image tokens are tied to: S token ids, and which of them say each thing that can be seen."""

    ids_S: Tensor
    image_S: Tensor
    """The word that stands for an image in a prompt: all image tokens say that they are of one."""
    numbers_NS: Tensor
    """Of the numbers 0 to 109."""
    signs_CS: Tensor
    """Of the operators, in the order of CHARACTERS."""
    places_CS: Tensor
    """Of PLACES; a place of two words is said by both."""

    def said_by(self, characters_M4: Tensor, place_M: Tensor, tens_M: Tensor, units_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return which words each image token says, shape (M, S), and which of them are its number.

        The labels are those of the token's four patches, and the largest of its patches' place, tens and units.
        """
        device = characters_M4.device
        sign_MC = functional.one_hot(characters_M4, 1 + len(CHARACTERS)).amax(1)[:, 1 + len(DIGITS) :].float()
        place_MC = functional.one_hot(place_M, 1 + len(PLACES))[:, 1:].float()
        # All tokens of a card say its whole number: a question about the number then finds the place in one step.
        number_M = torch.where(tens_M == TENS - 1, 0, tens_M) * 10 + units_M
        number_MS = self.numbers_NS.to(device)[number_M.clamp_min(0)] * (units_M >= 0)[:, None]
        said_MS = number_MS + sign_MC @ self.signs_CS.to(device) + place_MC @ self.places_CS.to(device)
        return said_MS, number_MS


def tied_words(codec: TextCodec) -> TiedWords:
    """Return the words of numbers, operators and places."""
    numbers = [codec.plain(str(number)) for number in range(10 * (TENS - 1))]
    signs = [codec.plain(sign) for sign in CHARACTERS[len(DIGITS) :]]
    spoken = {text: codec.plain(text) for text in PLACE_TOKENS}
    places = [
        [spoken[text][0] for text in spoken if text.strip() in place.split() and len(spoken[text]) == 1]
        for place in PLACES
    ]
    image = [codec.image_id]
    ids = sorted({token for tokens in (image, *numbers, *signs, *places) for token in tokens})

    def said(things: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[float(token in tokens) for token in ids] for tokens in things])

    return TiedWords(
        ids_S=torch.tensor(ids),
        image_S=said([image])[0],
        numbers_NS=said(numbers),
        signs_CS=said(signs),
        places_CS=said(places),
    )
