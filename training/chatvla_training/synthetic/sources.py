# SPDX-License-Identifier: Apache-2.0
"""Open the synthetic image-text data by name: the stand-in for web pretraining of the tiny model.

- `scenes`: whole pictures of the bench with a dialogue: read, solve, list, point, explain. `renders`: the same, drawn
  by the bench itself, with arms and shadows.
- `points`: the same pictures with short questions of which number is where.
- `sums`, `told`, `finds`: arithmetic, scenes told in words, and only the cards of such scenes, without an image.
- `places`, `words`, `all`: mixes of these (MIXES).
- `imagined`: the same for the objective `imagined`, which needs no tower.
- `sheets`, `labelled`, `pages`: dense labels for the objectives `glyphs`, `align` and `align_sheets`.
- `toys_...`: about the toy bench, see toy_sources.py.
Sample (index, draw) is the same on every machine: index picks the scene, draw the questions and small changes of light.
"""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chatvla_sim.math_match import fonts, handwriting
from chatvla_sim.math_match.trial import Trial
from chatvla_training.data.samples import ChatSample, SampleSource, Turn
from chatvla_training.synthetic import pool, sheets, trials
from chatvla_training.synthetic.pool import Scene, ScenePool
from chatvla_training.synthetic.sheets import HANDS, MORE_HANDS, Sheet, draw_sheet
from chatvla_training.synthetic.toy_sources import TOY_SOURCES, open_toy_source
from chatvla_training.synthetic.trials import image_text_equations, image_text_trial, wider_equations
from chatvla_training.text import math_phrases, questions
from chatvla_training.text.math_phrases import Card, MathFacts
from chatvla_training.text.questions import (
    arithmetic_dialogue,
    finding_dialogue,
    pointing_dialogue,
    scene_dialogue,
    told_dialogue,
)

__all__ = ["SOURCES", "LabelledSource", "Page", "PageSource", "SheetSource", "SyntheticSource", "open_source"]

SHEETS = 1_000_000
"""Sheets and sums that exist; each is made when it is asked for."""
TOLD = 1_000_000
"""Scenes that are told in words."""
MIXES: dict[str, dict[str, float]] = {
    "all": {"scenes": 0.2, "renders": 0.33, "points": 0.12, "told": 0.05, "sums": 0.3},
    "places": {"points": 0.6, "finds": 0.4},
    "words": {"told": 0.75, "sums": 0.25},
    **{name: {name: 1.0} for name in ("scenes", "renders", "points", "sums", "told", "finds")},
    "imagined": {"scenes": 0.4, "points": 0.2, "finds": 0.1, "told": 0.05, "sums": 0.25},
}
SOURCES = (*MIXES, "sheets", "labelled", "pages")
SHEETS_PER_SCENE = 2
SHIFT_PX = 4
_CODE = (math_phrases, questions, pool)


def open_source(name: str, seed: int, cache: Path | None = None) -> SampleSource:
    """Return the source `name`; drawn scenes are kept in folder `cache`.

    Raises ValueError with the list of sources for another name.
    """
    if name in TOY_SOURCES:
        return open_toy_source(name, seed, cache)
    if name == "sheets":
        return SheetSource(seed=seed)
    if name in ("labelled", "pages"):
        scenes = LabelledSource(pools=(ScenePool("drawn", seed, cache), ScenePool("rendered", seed, cache)))
        return (
            scenes if name == "labelled" else PageSource(scenes=scenes, sheets=SheetSource(seed=seed, hands=MORE_HANDS))
        )
    if name not in MIXES:
        raise ValueError(f"no synthetic data {name!r}; there are: {', '.join([*SOURCES, *TOY_SOURCES])}")
    pools = {kind: ScenePool(kind, seed, cache) for kind in ("drawn", "rendered")}
    imagined = name.startswith("imagined")
    return SyntheticSource(name=f"synthetic:{name}", shares=MIXES[name], seed=seed, pools=pools, imagined=imagined)


@dataclass(frozen=True, kw_only=True)
class SyntheticSource:
    """Pictures with dialogues."""

    name: str
    shares: Mapping[str, float]
    seed: int
    pools: Mapping[str, ScenePool]
    imagined: bool = False
    """Whether the scene stands in for its picture: drawn scenes only, with the places of what they show."""

    def __len__(self) -> int:
        """Return how many scenes there are."""
        return self.pools["drawn"].size

    def sample(self, index: int, draw: int) -> ChatSample:
        """Return a picture and the dialogue that `draw` chooses."""
        rng = random.Random(f"{self.seed} {index} {draw}")
        kind = rng.choices(list(self.shares), list(self.shares.values()))[0]
        identity = f"{self.name}/{kind}/{index}"
        if kind == "sums":
            known = image_text_equations() if rng.random() < 0.5 else wider_equations()
            return _chat(identity, (), arithmetic_dialogue(known, rng))
        if kind in ("told", "finds"):
            facts = facts_of(image_text_trial(rng.randrange(TOLD)))
            return _chat(identity, (), (told_dialogue if kind == "told" else finding_dialogue)(facts, rng))
        rendered = kind == "renders" or (kind == "points" and not self.imagined and rng.random() < 0.5)
        chosen = self.pools["rendered" if rendered else "drawn"]
        scene = chosen.scene(index % chosen.size)
        facts = facts_of(scene.trial)
        pairs = (pointing_dialogue if kind == "points" else scene_dialogue)(facts, rng)
        if self.imagined:
            right, down = (rng.randint(-SHIFT_PX, SHIFT_PX) for _ in range(2))
            return _chat(identity, (scene.image,), pairs, scene=moved_marks(scene, right, down))
        return _chat(identity, (varied_scene(scene, np.random.default_rng([self.seed, index, draw])).image,), pairs)

    def sha256(self) -> str:
        """Return a fingerprint of the code and settings that draw the data."""
        drawn = "\n".join(item.sha256() for item in self.pools.values())
        text = "\n".join((self.name, str(self.seed), str(self.shares), drawn, *map(inspect.getsource, _CODE)))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class LabelledSource:
    """Scenes, half of them drawn and half rendered, with the places of their glyphs and cards."""

    pools: tuple[ScenePool, ...]
    name: str = "synthetic:labelled"

    def __len__(self) -> int:
        """Return how many scenes there are."""
        return sum(pool.size for pool in self.pools)

    def sample(self, index: int, draw: int) -> Scene:
        """Return scene `index` of the pool, in the light and at the place that `draw` chooses."""
        rng = np.random.default_rng([index, draw])
        chosen = self.pools[int(rng.integers(len(self.pools)))]
        return varied_scene(chosen.scene(index % chosen.size), rng)

    def sha256(self) -> str:
        """Return a fingerprint of the code and settings that draw the scenes."""
        return hashlib.sha256("\n".join(pool.sha256() for pool in self.pools).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class SheetSource:
    """Sheets of handwriting with labelled patches; nothing lies on disk."""

    seed: int
    hands: int = HANDS
    name: str = "synthetic:sheets"

    def __len__(self) -> int:
        """Return how many sheets there are."""
        return SHEETS

    def sample(self, index: int, draw: int) -> Sheet:
        """Return sheet `index`."""
        return draw_sheet(f"{self.name}/{index}", np.random.default_rng([self.seed, index, draw]), self.hands)

    def sha256(self) -> str:
        """Return a fingerprint of the code and settings that draw the sheets."""
        modules = (fonts, handwriting, trials, sheets)
        text = "\n".join((str(self.seed), str(self.hands), *(inspect.getsource(module) for module in modules)))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Page:
    """A labelled scene, and sheets: digits cover a twentieth of a scene, and most of a sheet."""

    scene: Scene
    sheets: tuple[Sheet, ...]

    @property
    def id(self) -> str:
        """Return the scene's name."""
        return self.scene.id


@dataclass(frozen=True, kw_only=True)
class PageSource:
    """Labelled scenes, each with SHEETS_PER_SCENE sheets."""

    scenes: LabelledSource
    sheets: SheetSource
    name: str = "synthetic:pages"

    def __len__(self) -> int:
        """Return how many scenes there are."""
        return len(self.scenes)

    def sample(self, index: int, draw: int) -> Page:
        """Return scene `index` with the sheets that `draw` chooses."""
        rng = np.random.default_rng([index, draw, 7306])
        numbers = rng.integers(len(self.sheets), size=SHEETS_PER_SCENE)
        sheets = tuple(self.sheets.sample(int(number), draw) for number in numbers)
        return Page(scene=self.scenes.sample(index, draw), sheets=sheets)

    def sha256(self) -> str:
        """Return a fingerprint of the code and settings that draw scenes and sheets."""
        return hashlib.sha256((self.scenes.sha256() + self.sheets.sha256()).encode()).hexdigest()


def facts_of(trial: Trial) -> MathFacts:
    """Return what a reasoning about `trial` states."""
    return MathFacts(
        left=trial.equation.left,
        operator=trial.equation.operator,
        right=trial.equation.right,
        cards=tuple(Card(value=card.value, place=card.place) for card in trial.cards),
    )


def varied_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return `scene` a few pixels aside, in another light and with other noise; glyphs and boxes go along."""
    right, down = (int(value) for value in rng.integers(-SHIFT_PX, SHIFT_PX + 1, 2))
    height, width = scene.image.shape[:2]
    padded = np.pad(scene.image, ((SHIFT_PX,) * 2, (SHIFT_PX,) * 2, (0, 0)), mode="edge")
    moved = padded[SHIFT_PX - down : SHIFT_PX - down + height, SHIFT_PX - right : SHIFT_PX - right + width]
    # Noise for all three channels alike: a third of the numbers to draw.
    noise = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(0, 5))
    light = rng.uniform(0.85, 1.12) * rng.uniform(0.96, 1.04, 3).astype(np.float32)
    image = np.clip(moved * light.astype(np.float32) + noise, 0, 255).astype(np.uint8)
    return moved_marks(replace(scene, image=image), right, down)


def moved_marks(scene: Scene, right: int, down: int) -> Scene:
    """Return `scene` with glyphs and boxes so many pixels aside; the picture stays."""
    return replace(
        scene,
        glyphs=tuple(replace(glyph, x=glyph.x + right, y=glyph.y + down) for glyph in scene.glyphs),
        card_boxes=tuple((b[0] + right, b[1] + down, b[2] + right, b[3] + down) for b in scene.card_boxes),
    )


def _chat(
    identity: str, images: tuple[NDArray[np.uint8], ...], pairs: list[tuple[str, str]], **extras: Scene
) -> ChatSample:
    turns = tuple(Turn(question=q, answer=a) for q, a in pairs)
    return ChatSample(id=identity, images=images, turns=turns, extras=extras)
