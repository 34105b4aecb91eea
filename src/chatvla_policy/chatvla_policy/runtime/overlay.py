# SPDX-License-Identifier: Apache-2.0
"""Draw what a policy sees, thinks and plans: boxes on the image, text and planned joints under it. No ROS.

Shapes: H, W image; T rows, D joints.
"""

from __future__ import annotations

import textwrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from chatvla_control.contracts import ActionChunk, Reasoning, ReasoningSource
from chatvla_control.robot_spec import RobotSpec

__all__ = ["PANEL_HEIGHT", "draw_overlay"]

PANEL_HEIGHT = 120
"""Pixels under the image: text above, planned joints below."""
_TEXT_HEIGHT, _LINE = 66, 11
_COLOURS = {
    ReasoningSource.GENERATED: (235, 235, 235),
    ReasoningSource.REUSED: (170, 200, 235),
    ReasoningSource.FORCED: (255, 170, 60),
    ReasoningSource.SCRIPTED: (200, 140, 255),
}
_BOX = (60, 230, 90)


def draw_overlay(
    image: NDArray[np.uint8],
    *,
    view: str,
    reasoning: Reasoning | None,
    chunk: ActionChunk | None,
    spec: RobotSpec,
    now_s: float,
    note: str = "",
) -> NDArray[np.uint8]:
    """Return an RGB picture, shape (H + PANEL_HEIGHT, W, 3): image, boxes, text in the colour of its source, plan.

    `note` (a fault) replaces the text's heading. The planned joints run from 0.5 s before `now_s` to 1.5 s after it.
    """
    height, width = image.shape[:2]
    canvas = Image.new("RGB", (width, height + PANEL_HEIGHT), (16, 16, 20))
    canvas.paste(Image.fromarray(image), (0, 0))
    pen = ImageDraw.Draw(canvas)
    if reasoning is not None:
        _draw_text(pen, reasoning, view, width, height)
    if note:
        pen.text((4, height + 2), note[: width // 6], fill=(255, 90, 90))
    if chunk is not None:
        _draw_plan(pen, chunk, spec, now_s, (0, height + _TEXT_HEIGHT, width, height + PANEL_HEIGHT - 2))
    return np.asarray(canvas)


def _draw_text(pen: ImageDraw.ImageDraw, reasoning: Reasoning, view: str, width: int, top: int) -> None:
    for box in reasoning.boxes:
        if box.view == view:
            pen.rectangle((box.x_min, box.y_min, box.x_max, box.y_max), outline=_BOX, width=2)
            pen.text((box.x_min + 3, box.y_min + 1), _drawable(box.label), fill=_BOX)
    heading = f"[{reasoning.source.name.lower()}] "
    lines = textwrap.wrap(_drawable(heading + reasoning.text), max(20, width // 6))
    for number, line in enumerate(lines[: _TEXT_HEIGHT // _LINE - 1]):
        pen.text((4, top + 2 + (number + 1) * _LINE), line, fill=_COLOURS[reasoning.source])


def _draw_plan(
    pen: ImageDraw.ImageDraw,
    chunk: ActionChunk,
    spec: RobotSpec,
    now_s: float,
    area: tuple[int, int, int, int],
) -> None:
    left, top, right, bottom = area
    begin_s, end_s = now_s - 0.5, now_s + 1.5
    times = chunk.start_s + chunk.step_period_s * np.arange(len(chunk.actions))
    shown = (times >= begin_s) & (times <= end_s)
    x = left + (times[shown] - begin_s) / (end_s - begin_s) * (right - left)
    width = min(chunk.actions.shape[1], spec.width)
    share = (chunk.actions[shown, :width] - spec.lower[:width]) / (spec.upper - spec.lower)[:width]
    y = bottom - np.clip(share, 0.0, 1.0) * (bottom - top)
    for joint in range(width):
        if len(x) > 1:
            hue = int(255 * joint / max(width - 1, 1))
            pen.line(list(zip(x.tolist(), y[:, joint].tolist(), strict=True)), fill=(hue, 200 - hue // 2, 255 - hue))
    now_x = left + (now_s - begin_s) / (end_s - begin_s) * (right - left)
    pen.line((now_x, top, now_x, bottom), fill=(250, 250, 250))


def _drawable(text: str) -> str:
    """Return the text with what the built-in font lacks replaced."""
    return text.encode("latin-1", "replace").decode("latin-1")
