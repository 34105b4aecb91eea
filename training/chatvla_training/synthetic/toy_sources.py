# SPDX-License-Identifier: Apache-2.0
"""Open the synthetic image-text data about toys by name: the stand-in for web pretraining of the tiny model.

- `toys_scenes`: tables as in trials with a dialogue: point, name, list, relate, find the place, explain.
- `toys_short`: the same tables, and crowded ones, with short questions; `toys_points`: only where things are.
- `toys_told`: scenes told in words, without an image.
- `toys_all`: all of these.
- `toys_imagined`, `toys_imagined_points`: all, or only where things are, for the objective `objects_imagined`, which
  needs no tower.
- `toys_crowds`, `toys_labelled`: dense labels for the objectives `objects` and `objects_align`.
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

from chatvla_training.data.samples import ChatSample, SampleSource, Turn
from chatvla_training.synthetic import toy_facts
from chatvla_training.synthetic.toy_facts import imagined_scene, scattered_things, scene_facts
from chatvla_training.synthetic.toy_pool import ToyPool, ToyScene
from chatvla_training.synthetic.toy_trials import image_text_toy_trial
from chatvla_training.text import toy_phrases, toy_questions
from chatvla_training.text.toy_questions import (
    finding_dialogue,
    pointing_dialogue,
    short_dialogue,
    told_dialogue,
    toy_dialogue,
)

__all__ = ["TOY_SOURCES", "ToyLabelSource", "ToySource", "open_toy_source", "varied_toys"]

MIXES: Mapping[str, Mapping[str, float]] = {
    "toys_scenes": {"scenes": 1.0},
    "toys_told": {"told": 1.0},
    "toys_short": {"short": 0.55, "crowds": 0.35, "told": 0.1},
    "toys_points": {"points": 1.0},
    "toys_all": {"scenes": 0.5, "points": 0.18, "short": 0.1, "crowds": 0.1, "told": 0.12},
    "toys_imagined": {"scenes": 0.4, "points": 0.25, "short": 0.1, "crowds": 0.1, "told": 0.1, "finds": 0.05},
    "toys_imagined_points": {"points": 0.9, "finds": 0.1},
}
DIALOGUES = {
    "scenes": toy_dialogue,
    "short": short_dialogue,
    "crowds": short_dialogue,
    "points": pointing_dialogue,
}
LABELLED = {"toys_crowds": "crowds", "toys_labelled": "trials"}
TOY_SOURCES = (*MIXES, *LABELLED)
SHIFT_PX = 4
TOLD = 1_000_000
"""Scenes that are told in words."""
_CODE = (toy_facts, toy_phrases, toy_questions)


def open_toy_source(name: str, seed: int, cache: Path | None = None) -> SampleSource:
    """Return the source `name`; scenes are kept in folder `cache`. Raises KeyError for another name."""
    if name in LABELLED:
        return ToyLabelSource(name=f"synthetic:{name}", pool=ToyPool(LABELLED[name], seed, cache))
    pools = {kind: ToyPool(kind, seed, cache) for kind in ("trials", "crowds")}
    imagined = name.startswith("toys_imagined")
    return ToySource(name=f"synthetic:{name}", shares=MIXES[name], seed=seed, pools=pools, imagined=imagined)


@dataclass(frozen=True, kw_only=True)
class ToySource:
    """Pictures of toys with dialogues."""

    name: str
    shares: Mapping[str, float]
    seed: int
    pools: Mapping[str, ToyPool]
    imagined: bool = False
    """Whether the scene stands in for its picture, with what is seen where."""

    def __len__(self) -> int:
        """Return how many scenes there are."""
        return self.pools["trials"].size

    def sample(self, index: int, draw: int) -> ChatSample:
        """Return a picture and the dialogue that `draw` chooses."""
        rng = random.Random(f"{self.seed} {index} {draw}")
        kind = rng.choices(list(self.shares), list(self.shares.values()))[0]
        identity = f"{self.name}/{kind}/{index}"
        if kind == "finds":
            return _chat(identity, (), finding_dialogue(scattered_things(rng), rng))
        if kind == "told":
            told = scene_facts(imagined_scene(image_text_toy_trial(rng.randrange(TOLD))))
            return _chat(identity, (), told_dialogue(told, rng))
        crowded = kind == "crowds" or (kind == "points" and rng.random() < 0.5)
        pool = self.pools["crowds" if crowded else "trials"]
        scene = varied_toys(pool.scene(index % pool.size), np.random.default_rng([self.seed, index, draw]))
        facts = scene_facts(scene)
        pairs = DIALOGUES[kind](facts, rng)
        extras = {"scene": scene} if self.imagined else {}
        return _chat(identity, (scene.image,), pairs, **extras)

    def sha256(self) -> str:
        """Return a fingerprint of the code and settings that draw the data."""
        drawn = "\n".join(item.sha256() for item in self.pools.values())
        text = "\n".join((self.name, str(self.seed), str(self.shares), drawn, *map(inspect.getsource, _CODE)))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ToyLabelSource:
    """Scenes with what is seen where."""

    name: str
    pool: ToyPool

    def __len__(self) -> int:
        """Return how many scenes there are."""
        return self.pool.size

    def sample(self, index: int, draw: int) -> ToyScene:
        """Return scene `index`, in a light and place that `draw` chooses."""
        return varied_toys(self.pool.scene(index), np.random.default_rng([index, draw]))

    def sha256(self) -> str:
        """Return a fingerprint of the code and settings that draw the scenes."""
        return self.pool.sha256()


def _chat(
    identity: str, images: tuple[NDArray[np.uint8], ...], pairs: list[tuple[str, str]], **extras: ToyScene
) -> ChatSample:
    turns = tuple(Turn(question=q, answer=a) for q, a in pairs)
    return ChatSample(id=identity, images=images, turns=turns, extras=extras)


def varied_toys(scene: ToyScene, rng: np.random.Generator) -> ToyScene:
    """Return `scene` a few pixels aside, in another light and with other noise."""
    right, down = (int(value) for value in rng.integers(-SHIFT_PX, SHIFT_PX + 1, 2))
    height, width = scene.image.shape[:2]
    padded = np.pad(scene.image, ((SHIFT_PX,) * 2, (SHIFT_PX,) * 2, (0, 0)), mode="edge")
    moved = padded[SHIFT_PX - down : SHIFT_PX - down + height, SHIFT_PX - right : SHIFT_PX - right + width]
    # Noise for all three channels alike: a third of the numbers to draw.
    noise = rng.standard_normal((height, width, 1), np.float32) * np.float32(rng.uniform(0, 5))
    # Colours have names here: light may not change them much.
    light = rng.uniform(0.88, 1.1) * rng.uniform(0.98, 1.02, 3).astype(np.float32)
    image = np.clip(moved * light.astype(np.float32) + noise, 0, 255).astype(np.uint8)
    return replace(scene, image=image, shift_px=(right, down))
