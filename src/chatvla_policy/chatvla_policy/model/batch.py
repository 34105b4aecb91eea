# SPDX-License-Identifier: Apache-2.0
"""What one training forward reads: sequences of robot and image-text samples side by side, and the robots' chunks.

One row is: prompt, text the model shall write with its end token, then the places of the action tokens (robot rows
only), then padding. Tensors: B rows, T tokens, R robot rows of one robot, H chunk steps, A action dims, Z state dims,
P image patches, X values a patch, N images, M numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["RobotRows", "VlaBatch", "to_device"]

D = TypeVar("D")


@dataclass(frozen=True, kw_only=True)
class RobotRows:
    """The rows of one robot: normalised states and chunks."""

    robot: str
    rows_R: Tensor
    """Which rows of the batch these are."""
    state_RZ: Tensor
    chunk_RHA: Tensor
    valid_RH: Tensor
    """False where a chunk runs past the end of its episode."""
    keyframe_RZ: Tensor | None = None
    """Normalised joints at the next keyframe; None where it is not known."""
    numbers_RM: Tensor | None = None
    """The last numbers that each text states, NaN where it lacks them (processing/stated_numbers.py)."""


@dataclass(frozen=True, kw_only=True)
class VlaBatch:
    """Rows of both kinds, padded on the right."""

    ids_BT: Tensor
    valid_BT: Tensor
    text_BT: Tensor
    """True at the tokens the model shall write, end token included."""
    query_BT: Tensor
    """True at the places of the action tokens."""
    kind_B: Tensor
    """InputKind of each row: the static path of its tokens."""
    pixel_values_PX: Tensor | None
    grid_thw_N3: Tensor | None
    robots: tuple[RobotRows, ...] = ()


def to_device(item: D, device: torch.device | str) -> D:
    """Return the batch with all tensors on `device`."""
    changes = {}
    for part in fields(item):  # type: ignore[arg-type]
        value = getattr(item, part.name)
        if isinstance(value, Tensor):
            changes[part.name] = value.to(device)
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            changes[part.name] = tuple(to_device(inner, device) for inner in value)
    return replace(item, **changes)  # type: ignore[type-var]
