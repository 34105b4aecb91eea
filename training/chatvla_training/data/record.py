# SPDX-License-Identifier: Apache-2.0
"""Hold one recorded episode, and keep it in one file that is either whole or absent.

Shapes: N rows at the control rate; F camera frames; D joints.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["EpisodeRecord", "RecordError", "decode_image", "encode_image", "load_record", "save_record"]


class RecordError(ValueError):
    """An episode record does not fit together; the message says what and where."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One episode: joint rows at the control rate, camera frames, and what was thought at each frame."""

    instruction: str
    rate_hz: float
    states: NDArray[np.float32]
    """Measured joints [rad, m], shape (N, D)."""
    actions: NDArray[np.float32]
    """Targets the demonstrator wanted at each row [rad, m], shape (N, D)."""
    frame_rows: NDArray[np.int64]
    """Row at which each frame was new, ascending from 0, shape (F,)."""
    frames: Mapping[str, Sequence[bytes]]
    """Encoded image per view and frame."""
    reasoning: Sequence[str]
    """Text of each frame, length F."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the episode: seed, split, equation, noise; plain JSON data."""

    def __post_init__(self) -> None:
        """Raise RecordError when the parts do not fit together."""
        rows, frames = len(self.states), len(self.frame_rows)
        if self.states.shape != self.actions.shape or rows == 0:
            raise RecordError(f"states {self.states.shape} and actions {self.actions.shape} must be alike, not empty")
        if frames == 0 or self.frame_rows[0] != 0 or np.any(np.diff(self.frame_rows) <= 0):
            raise RecordError("frames must start at row 0 and ascend")
        if self.frame_rows[-1] >= rows:
            raise RecordError(f"a frame at row {self.frame_rows[-1]} lies past the last of {rows} rows")
        if len(self.reasoning) != frames or any(len(images) != frames for images in self.frames.values()):
            raise RecordError(f"every view and the reasoning must have {frames} entries, one a frame")
        if not (np.isfinite(self.states).all() and np.isfinite(self.actions).all()):
            raise RecordError("states or actions hold NaN or infinity")

    @property
    def frame_of_row(self) -> NDArray[np.int64]:
        """Index of the newest frame at each row, shape (N,)."""
        return np.searchsorted(self.frame_rows, np.arange(len(self.states)), side="right") - 1

    @property
    def image_age_s(self) -> NDArray[np.float32]:
        """Age of the newest frame at each row [s], shape (N,)."""
        return ((np.arange(len(self.states)) - self.frame_rows[self.frame_of_row]) / self.rate_hz).astype(np.float32)


def encode_image(image: NDArray[np.uint8], *, codec: str = "jpeg", quality: int = 90) -> bytes:
    """Return the file bytes of an RGB image (H, W, 3); `codec` is "jpeg" (no colour subsampling) or "png" (exact)."""
    buffer = BytesIO()
    if codec == "jpeg":
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    elif codec == "png":
        Image.fromarray(image).save(buffer, "PNG", compress_level=4)
    else:
        raise RecordError(f"image codec {codec!r} is not one of jpeg, png")
    return buffer.getvalue()


def decode_image(data: bytes | memoryview) -> NDArray[np.uint8]:
    """Return the RGB image (H, W, 3) of file bytes. Raises OSError when they are no whole image."""
    try:
        with Image.open(BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:  # What PIL says of a broken file.
        raise OSError(f"no whole image: {error}") from error


def save_record(record: EpisodeRecord, path: Path) -> None:
    """Write `record` to `path`: aside first, then renamed, so that a kill leaves no half file."""
    header = {
        "instruction": record.instruction,
        "rate_hz": record.rate_hz,
        "reasoning": list(record.reasoning),
        "facts": dict(record.facts),
        "views": list(record.frames),
    }
    blobs: dict[str, NDArray[Any]] = {
        "states": record.states,
        "actions": record.actions,
        "frame_rows": record.frame_rows,
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
    }
    for number, images in enumerate(record.frames.values()):
        blobs[f"lengths_{number}"] = np.array([len(image) for image in images], np.int64)
        blobs[f"bytes_{number}"] = np.frombuffer(b"".join(images), np.uint8)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as stream:
        np.savez(stream, **blobs)  # pyright: ignore[reportArgumentType]
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)


def load_record(path: Path) -> EpisodeRecord:
    """Return the record of `path`. Raises RecordError when its parts do not fit together."""
    with np.load(path, allow_pickle=False) as blobs:
        header = json.loads(blobs["header"].tobytes())
        frames: dict[str, list[bytes]] = {}
        for number, view in enumerate(header["views"]):
            data = blobs[f"bytes_{number}"].tobytes()
            ends = np.cumsum(blobs[f"lengths_{number}"])
            frames[view] = [data[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        return EpisodeRecord(
            instruction=header["instruction"],
            rate_hz=header["rate_hz"],
            states=blobs["states"],
            actions=blobs["actions"],
            frame_rows=blobs["frame_rows"],
            frames=frames,
            reasoning=header["reasoning"],
            facts=header["facts"],
        )
