# SPDX-License-Identifier: Apache-2.0
"""Write and read boxes in Qwen2-VL's own notation.

  <|object_ref_start|>label<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>
Coordinates are thousandths of the prepared image's width and height. The model may write anything, so reading is
strict: a box that is malformed, empty, outside 0..1000 or over the limits is left out, never repaired.
"""

from __future__ import annotations

import re

from chatvla_control.contracts import BoundingBox
from chatvla_policy.processing.images import ImageConfig, Placement

__all__ = ["MAX_BOXES", "MAX_LABEL_CHARACTERS", "box_text", "parse_boxes", "without_box_marks"]

MAX_BOXES = 64
MAX_LABEL_CHARACTERS = 120
_BOX = re.compile(
    rf"<\|object_ref_start\|>([^<>|]{{1,{MAX_LABEL_CHARACTERS}}})<\|object_ref_end\|>"
    r"<\|box_start\|>\(([0-9]{1,4}),([0-9]{1,4})\),\(([0-9]{1,4}),([0-9]{1,4})\)<\|box_end\|>"
)
_BOX_TAIL = re.compile(r"<\|box_start\|>[^<]{0,64}<\|box_end\|>|<\|(?:object_ref|box)_(?:start|end)\|>")


def box_text(box: BoundingBox, placement: Placement, config: ImageConfig) -> str:
    """Return a box of camera pixels as text."""

    def thousandths(pixel: float, offset: float, size: int) -> int:
        return min(1000, max(0, round((pixel * placement.scale + offset) / size * 1000)))

    x1, x2 = (thousandths(x, placement.offset_x, config.width) for x in (box.x_min, box.x_max))
    y1, y2 = (thousandths(y, placement.offset_y, config.height) for y in (box.y_min, box.y_max))
    return f"<|object_ref_start|>{box.label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


def parse_boxes(text: str, view: str, placement: Placement, config: ImageConfig) -> tuple[BoundingBox, ...]:
    """Return the well-formed boxes of `text` in camera pixels of `view`, at most MAX_BOXES, in order."""
    boxes: list[BoundingBox] = []
    for match in _BOX.finditer(text):
        label = match[1].strip()
        x1, y1, x2, y2 = (int(group) for group in match.groups()[1:])
        if not label or max(x1, y1, x2, y2) > 1000 or x1 >= x2 or y1 >= y2:
            continue

        def pixel(value: int, offset: float, size: int, limit: int) -> float:
            return min(float(limit), max(0.0, (value / 1000 * size - offset) / placement.scale))

        box = BoundingBox(
            label=label,
            view=view,
            x_min=pixel(x1, placement.offset_x, config.width, placement.source_width),
            x_max=pixel(x2, placement.offset_x, config.width, placement.source_width),
            y_min=pixel(y1, placement.offset_y, config.height, placement.source_height),
            y_max=pixel(y2, placement.offset_y, config.height, placement.source_height),
        )
        if box.x_min < box.x_max and box.y_min < box.y_max:
            boxes.append(box)
        if len(boxes) == MAX_BOXES:
            break
    return tuple(boxes)


def without_box_marks(text: str) -> str:
    """Return the text as people read it: labels stay, box marks and coordinates go."""
    return _BOX_TAIL.sub("", text)
