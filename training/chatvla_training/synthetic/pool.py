# SPDX-License-Identifier: Apache-2.0
"""Keep drawn scenes on disk: drawing one costs more than training on it, and each is shown many times.

A scene is a function of (seed, kind, index). Its picture and marks are kept the first time they are asked for, in
files whose name holds a hash of the code that draws them; deleting them costs time, nothing else.
- `drawn`: board and cards through the bench's camera by homography (compose.py), with every glyph's place.
- `rendered`: the bench itself, with arms and shadows; the arms stand anywhere, whatever the right card is.
Pixels of the 320x240 image.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatvla_sim.math_match import equations, fonts, geometry, handwriting, textures
from chatvla_sim.math_match.handwriting import Glyph
from chatvla_sim.math_match.trial import Trial
from chatvla_training.synthetic import compose as compose_module
from chatvla_training.synthetic import trials
from chatvla_training.synthetic.compose import compose, marks
from chatvla_training.synthetic.trials import image_text_trial

__all__ = ["POOL_SIZES", "Scene", "ScenePool"]

POOL_SIZES = {"drawn": 8_000, "rendered": 6_000}
"""Scenes of each kind."""
SHAPE = (240, 320, 3)
MOST_GLYPHS = 24
MOST_CARDS = 5
SEED_STRIDE = 1_000_000
RENDERED_OFFSET = 500_000
"""Trials of rendered scenes are others than those of drawn ones."""
_CODE = (equations, fonts, geometry, handwriting, textures, compose_module, trials)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scene: picture (H, W, 3) uint8 RGB, what it shows, and where. In rendered scenes an arm may hide it."""

    id: str
    image: NDArray[np.uint8]
    trial: Trial
    glyphs: tuple[Glyph, ...]
    """Characters of the equation, then of the cards from left to right."""
    card_boxes: tuple[tuple[float, ...], ...]
    """(x_min, y_min, x_max, y_max) per card."""


class ScenePool:
    """Scenes of one kind and seed. Several processes may use the same folder."""

    def __init__(self, kind: str, seed: int, folder: Path | None) -> None:
        """`folder` None draws every time. Raises KeyError for a kind that does not exist."""
        self.kind, self.seed, self.size = kind, seed, POOL_SIZES[kind]
        self._folder = folder
        self._bench: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a process: open files and the renderer."""
        return {"kind": self.kind, "seed": self.seed, "size": self.size, "_folder": self._folder, "_bench": None}

    def scene(self, index: int) -> Scene:
        """Return scene `index`, 0 or more, below the pool's size."""
        offset = RENDERED_OFFSET if self.kind == "rendered" else 0
        trial = image_text_trial(self.seed * SEED_STRIDE + offset + index)
        identity = f"{self.kind}/{self.seed}/{index}"
        if self._folder is None:
            image, glyph_rows, boxes = self._draw(trial, index)
        else:
            images, marks_file, boxes_file, done = self._files
            if not done[index]:
                # The flag comes last: a killed process leaves a scene that is drawn again, to the same pixels.
                images[index], marks_file[index], boxes_file[index] = self._draw(trial, index)
                done[index] = 1
            image, glyph_rows, boxes = np.array(images[index]), marks_file[index], boxes_file[index]
        glyphs = tuple(Glyph(character=chr(int(m[0])), x=float(m[1]), y=float(m[2])) for m in glyph_rows if m[0] > 0)
        return Scene(
            id=identity,
            image=image,
            trial=trial,
            glyphs=glyphs,
            card_boxes=tuple(tuple(float(value) for value in box) for box in boxes[: len(trial.cards)]),
        )

    @cached_property
    def _files(self) -> tuple[NDArray[Any], ...]:
        """Return images, marks, boxes and flags as files in memory; made when missing."""
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.kind}-{self.seed}-{self.sha256()[:12]}"
        layout = (
            ("image", np.uint8, SHAPE),
            ("glyphs", np.float32, (MOST_GLYPHS, 3)),
            ("boxes", np.float32, (MOST_CARDS, 4)),
            ("done", np.uint8, ()),
        )
        opened = []
        for part, dtype, shape in layout:
            path = self._folder / f"{name}.{part}"
            path.open("ab").close()
            wanted = self.size * int(np.prod(shape)) * np.dtype(dtype).itemsize
            if path.stat().st_size < wanted:
                with path.open("r+b") as file:
                    file.truncate(wanted)
            opened.append(np.memmap(path, dtype=dtype, mode="r+", shape=(self.size, *shape)))
        return tuple(opened)

    def _draw(self, trial: Trial, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        rng = np.random.default_rng([self.seed, index, 7303])
        if self.kind == "rendered":
            return self._render(trial, rng), *_rows(*marks(trial))
        view = compose(trial, rng)
        return view.image, *_rows(view.glyphs, view.card_boxes)

    def _render(self, trial: Trial, rng: np.random.Generator) -> NDArray[np.uint8]:
        from chatvla_sim.math_match.bench import MathMatchBench

        if self._bench is None:
            self._bench = MathMatchBench()
        self._bench.show(trial, joints=arms_anywhere(self._bench.spec, rng))
        return self._bench.render("top")

    def sha256(self) -> str:
        """Return a fingerprint of the code and settings that draw the scenes."""
        parts = (self.kind, str(self.seed), str(self.size), *(inspect.getsource(module) for module in _CODE))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _rows(
    glyphs: Sequence[Glyph], card_boxes: Sequence[Sequence[float]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return glyphs as rows of (character code, x, y), and boxes, both filled up with zeros."""
    marks_G3, boxes_C4 = np.zeros((MOST_GLYPHS, 3), np.float32), np.zeros((MOST_CARDS, 4), np.float32)
    for row, glyph in enumerate(glyphs[:MOST_GLYPHS]):
        marks_G3[row] = (ord(glyph.character), glyph.x, glyph.y)
    boxes_C4[: len(card_boxes)] = card_boxes
    return marks_G3, boxes_C4


def arms_anywhere(spec: Any, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return joint positions [rad, m], shape (D,): near home, or one arm on its way to a place drawn over the table."""
    from chatvla_control.kinematics import IkError
    from chatvla_sim.math_match.motions import ArmMotions, tool_on_card

    home = np.array(spec.home, dtype=np.float64)
    joints = np.clip(home + rng.normal(0, 0.03, len(home)), spec.lower, spec.upper)
    if rng.random() < 0.45:
        return joints
    motions = ArmMotions(spec)
    place = geometry.flat_card_pose(float(rng.uniform(0.18, 0.42)), float(rng.uniform(-0.2, 0.2)), 0.0)
    arm = motions.arms_by_distance(place[:3, 3])[0]
    try:
        reached = motions.solve(arm.name, tool_on_card(place, float(rng.uniform(0.03, 0.22))), home)
    except IkError:
        return joints
    share = rng.uniform(0.2, 1.0)
    for number, name in enumerate(arm.joints):
        column = spec.joint_names.index(name)
        joints[column] = (1 - share) * joints[column] + share * reached[number]
    return np.clip(joints, spec.lower, spec.upper)
