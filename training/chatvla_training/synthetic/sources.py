# SPDX-License-Identifier: Apache-2.0
"""Open the synthetic image-text data by name: the stand-in for web pretraining of the tiny model.

- `scenes`: whole pictures of the bench with a dialogue: read, solve, list, point, explain.
- `cards`, `boards`: strips cut from such pictures, where one skill is asked for.
- `sums`: arithmetic without an image.
- `all`: all of these.
Sample (index, draw) is the same on every machine: index picks the scene, draw the questions.
"""

from __future__ import annotations

import hashlib
import inspect
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_sim.math_match import equations, fonts, geometry, handwriting, textures
from chatvla_sim.math_match.trial import Trial
from chatvla_training.data.samples import ChatSample, Turn
from chatvla_training.synthetic import compose as compose_module
from chatvla_training.synthetic import trials
from chatvla_training.synthetic.compose import View, compose
from chatvla_training.synthetic.trials import image_text_equations, image_text_trial
from chatvla_training.text import math_phrases, questions
from chatvla_training.text.math_phrases import Card, MathFacts
from chatvla_training.text.questions import READ, arithmetic_dialogue, card_dialogue, scene_dialogue

__all__ = ["SOURCES", "SyntheticSource", "open_source"]

SCENES = 1_000_000
"""Scenes that exist; each is drawn when it is asked for."""
SHARES = {"scenes": 0.5, "cards": 0.2, "boards": 0.1, "sums": 0.2}
SOURCES = (*SHARES, "all")
STRIP_HEIGHT_PX = 80
_CODE = (equations, fonts, geometry, handwriting, textures, compose_module, trials, math_phrases, questions)


def open_source(name: str, seed: int) -> SyntheticSource:
    """Return the source `name`. Raises ValueError with the list of sources for another name."""
    if name not in SOURCES:
        raise ValueError(f"no synthetic data {name!r}; there are: {', '.join(SOURCES)}")
    return SyntheticSource(name=f"synthetic:{name}", kinds=tuple(SHARES) if name == "all" else (name,), seed=seed)


@dataclass(frozen=True, kw_only=True)
class SyntheticSource:
    """Pictures and dialogues drawn on demand; nothing lies on disk."""

    name: str
    kinds: tuple[str, ...]
    seed: int

    def __len__(self) -> int:
        """Return how many scenes there are."""
        return SCENES

    def sample(self, index: int, draw: int) -> ChatSample:
        """Return scene `index` with the dialogue that `draw` chooses."""
        rng = random.Random(f"{self.seed} {index} {draw}")
        kind = rng.choices(self.kinds, [SHARES[kind] for kind in self.kinds])[0]
        identity = f"{self.name}/{kind}/{index}"
        if kind == "sums":
            return _chat(identity, (), arithmetic_dialogue(image_text_equations(), rng))
        # Scenes of different seeds do not overlap.
        trial = image_text_trial(self.seed * SCENES + index)
        view = compose(trial, np.random.default_rng([self.seed, index, draw]))
        facts = facts_of(trial)
        if kind == "cards":
            return _chat(identity, (card_strip(view),), card_dialogue(facts, rng))
        if kind == "boards":
            return _chat(identity, (board_strip(view, trial),), [(rng.choice(READ), facts.equation)])
        return _chat(identity, (view.image,), scene_dialogue(facts, rng))

    def sha256(self) -> str:
        """Return a fingerprint of the code and settings that draw the data."""
        text = "\n".join((self.name, str(self.seed), str(SHARES), *(inspect.getsource(module) for module in _CODE)))
        return hashlib.sha256(text.encode()).hexdigest()


def facts_of(trial: Trial) -> MathFacts:
    """Return what a reasoning about `trial` states."""
    return MathFacts(
        left=trial.equation.left,
        operator=trial.equation.operator,
        right=trial.equation.right,
        cards=tuple(Card(value=card.value, place=card.place) for card in trial.cards),
    )


def card_strip(view: View) -> NDArray[np.uint8]:
    """Return the part of the picture that holds the cards, STRIP_HEIGHT_PX high."""
    middle = np.mean([(box[1] + box[3]) / 2 for box in view.card_boxes])
    return strip(view.image, float(middle))


def board_strip(view: View, trial: Trial) -> NDArray[np.uint8]:
    """Return the part of the picture that holds the equation, STRIP_HEIGHT_PX high."""
    return strip(view.image, float(np.mean([glyph.y for glyph in view.glyphs[: len(trial.equation.text)]])))


def strip(image: NDArray[np.uint8], middle_px: float) -> NDArray[np.uint8]:
    top = int(np.clip(middle_px - STRIP_HEIGHT_PX / 2, 0, image.shape[0] - STRIP_HEIGHT_PX))
    return image[top : top + STRIP_HEIGHT_PX]


def _chat(identity: str, images: tuple[NDArray[np.uint8], ...], pairs: list[tuple[str, str]]) -> ChatSample:
    return ChatSample(id=identity, images=images, turns=tuple(Turn(question=q, answer=a) for q, a in pairs))
