# SPDX-License-Identifier: Apache-2.0
"""Draw pictures of boards and cards, much faster than the simulator renders them, with every glyph's place known.

Board and cards are the bench's own pictures (chatvla_sim), seen through the bench's own camera by a homography each.
There is no light, no shadow and no robot: these pictures teach reading, renders of the bench teach the rest.
Units: m in the robot's base frame; pixels of the 320x240 image, x right, y down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chatvla_sim.camera import PinholeCamera
from chatvla_sim.math_match import textures
from chatvla_sim.math_match.geometry import BOARD_SIZE_M, CARD_SIZE_M, TOP_CAMERA, board_pose, flat_card_pose
from chatvla_sim.math_match.handwriting import Glyph
from chatvla_sim.math_match.trial import Trial

__all__ = ["View", "compose", "marks"]

Image3 = NDArray[np.uint8]
Box = tuple[float, float, float, float]
Placed = tuple[textures.Picture, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class View:
    """An image (H, W, 3) uint8 RGB, its glyphs, and each card's rectangle (x_min, y_min, x_max, y_max) px."""

    image: Image3
    glyphs: tuple[Glyph, ...]
    card_boxes: tuple[Box, ...]


def homography(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix (3, 3) that takes four source points (4, 2) to four target points (4, 2)."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    solved = np.linalg.solve(np.array(rows), target.reshape(-1))
    return np.append(solved, 1.0).reshape(3, 3)


def quad(
    pose: NDArray[np.float64], left: float, right: float, top: float, bottom: float, z: float
) -> NDArray[np.float64]:
    """Corners [m] (4, 3) of a rectangle in a pose's x-y plane: top left, top right, bottom right, bottom left."""
    local = np.array([[left, top, z, 1], [right, top, z, 1], [right, bottom, z, 1], [left, bottom, z, 1]])
    return (local @ pose.T)[:, :3]


def paste(canvas: Image.Image, picture: Image.Image, corners_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw `picture` onto `canvas`, in place, so that its corners fall on `corners_px`; return its homography."""
    width, height = picture.size
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    matrix = homography(source, corners_px)
    low = np.floor(corners_px.min(axis=0)).astype(int)
    high = np.ceil(corners_px.max(axis=0)).astype(int)
    shift = np.array([[1, 0, low[0]], [0, 1, low[1]], [0, 0, 1.0]])
    inverse = np.linalg.inv(matrix) @ shift
    inverse /= inverse[2, 2]
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    data = tuple(inverse.reshape(-1)[:8].tolist())
    warped = picture.transform(size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR)
    mask = Image.new("L", picture.size, 255).transform(
        size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR
    )
    canvas.paste(warped, (int(low[0]), int(low[1])), mask)
    return matrix


def through(matrix: NDArray[np.float64], x: float, y: float) -> tuple[float, float]:
    u, v, w = matrix @ np.array([x, y, 1.0])
    return (float(u / w), float(v / w))


def jittered(camera: PinholeCamera, rng: np.random.Generator, amount_m: float) -> PinholeCamera:
    position = tuple((np.array(camera.position) + rng.uniform(-amount_m, amount_m, 3)).tolist())
    target = tuple((np.array(camera.target) + rng.uniform(-amount_m, amount_m, 3)).tolist())
    return replace(camera, position=position, target=target)


def compose(trial: Trial, rng: np.random.Generator, *, camera_jitter_m: float = 0.012) -> View:
    """Return the picture of `trial` as the top camera would see board and cards, without robot and shadows."""
    camera = jittered(TOP_CAMERA, rng, camera_jitter_m)
    shade = rng.uniform(0.75, 1.08)
    base = np.array(trial.look.table) * 255
    canvas = Image.new("RGB", (camera.width, camera.height), tuple(int(v) for v in base))
    pictures = list(_pictures(trial))
    for picture, corners_m in pictures:
        # Half size first: the camera sees fewer pixels than the picture has.
        paste(canvas, Image.fromarray(picture.image).reduce(2), camera.project(corners_m))
    array = np.asarray(canvas).astype(np.float32) * shade
    array += rng.normal(0, rng.uniform(0, 6), array.shape)
    glyphs, boxes = _marks(pictures, camera)
    return View(image=np.clip(array, 0, 255).astype(np.uint8), glyphs=glyphs, card_boxes=boxes)


def marks(trial: Trial, camera: PinholeCamera = TOP_CAMERA) -> tuple[tuple[Glyph, ...], tuple[Box, ...]]:
    """Return where `camera` sees the glyphs of `trial`, the equation's first, and each card's rectangle, pixels."""
    return _marks(list(_pictures(trial)), camera)


def _marks(pictures: Sequence[Placed], camera: PinholeCamera) -> tuple[tuple[Glyph, ...], tuple[Box, ...]]:
    glyphs: list[Glyph] = []
    boxes: list[Box] = []
    for number, (picture, corners_m) in enumerate(pictures):
        pixels = camera.project(corners_m)
        height, width = picture.image.shape[:2]
        matrix = homography(np.array([[0, 0], [width, 0], [width, height], [0, height]], float), pixels)
        for glyph in picture.glyphs:
            u, v = through(matrix, glyph.x, glyph.y)
            glyphs.append(replace(glyph, x=u, y=v))
        if number:
            (left, top), (right, bottom) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
            boxes.append((left, top, right, bottom))
    return tuple(glyphs), tuple(boxes)


def _pictures(trial: Trial) -> Iterator[Placed]:
    """Yield the board and the cards, each with its corners [m], shape (4, 3)."""
    half, length = BOARD_SIZE_M[0] / 2, BOARD_SIZE_M[1]
    yield textures.board_picture(trial), quad(board_pose(), -half, half, length, 0.0, 0.0)
    width, height, thickness = CARD_SIZE_M
    for index, card in enumerate(trial.cards):
        pose = flat_card_pose(card.x_m, card.y_m, card.yaw_rad)
        yield (
            textures.card_picture(trial, index),
            quad(pose, -width / 2, width / 2, height / 2, -height / 2, thickness / 2),
        )
