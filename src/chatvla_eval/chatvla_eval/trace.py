# SPDX-License-Identifier: Apache-2.0
"""Keep what the report shows of one trial: pictures, texts with their times, chunks and the executed motion.

Times in s since the start of the trial; positions in rad and m, in RobotSpec order.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_eval.session import Watch

__all__ = ["TRACES", "TrialTrace", "read_trace", "trace_path"]

TRACES = "traces"
"""Folder of the traces beside results.json."""
THUMBNAILS = 8
THUMBNAIL_SIZE = (192, 144)
FRAME_EVERY_S = 0.5
CHUNK_STEP_S = 0.1
"""Chunks are kept at this step: what a plot can show."""


class TrialTrace:
    """The trace of one trial, filled while it runs."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._rows: list[NDArray[np.float64]] = []
        self._frames: list[tuple[float, NDArray[np.uint8]]] = []
        self._texts: list[tuple[float, str]] = []
        self._chunks: list[ActionChunk] = []
        self._zero_s = 0.0

    def wants_frame(self, elapsed_s: float) -> bool:
        """Return whether it is time for the next picture."""
        return not self._frames or elapsed_s - self._frames[-1][0] >= FRAME_EVERY_S

    def add_frame(self, elapsed_s: float, image: NDArray[np.uint8] | None) -> None:
        """Keep one picture (H, W, 3) RGB."""
        if image is not None and (not self._frames or elapsed_s > self._frames[-1][0]):
            self._frames.append((elapsed_s, image.copy()))

    def add(self, watch: Watch) -> None:
        """Keep what one watch shows."""
        self._zero_s = watch.clock_s - watch.elapsed_s
        if watch.joints is not None:
            self._times.append(watch.elapsed_s)
            self._rows.append(watch.joints)
        for text in watch.texts[len(self._texts) :]:
            self._texts.append((watch.elapsed_s, text))
        self._chunks = list(watch.chunks)

    def to_dict(self) -> dict[str, Any]:
        """Return the trace as plain data, pictures as JPEG in base64."""
        chunks = [chunk for chunk in self._chunks if chunk.mode is ActionMode.JOINT_POSITION]
        return {
            "joint_names": list(robot_spec(chunks[0].robot).joint_names) if chunks else [],
            "times_s": [round(time, 2) for time in self._times],
            "positions": [_rounded(row) for row in self._rows],
            "chunks": [_chunk(chunk, self._zero_s) for chunk in chunks],
            "texts": [{"time_s": round(time, 2), "text": text} for time, text in self._texts],
            "frames": [{"time_s": round(time, 2), "jpeg": _jpeg(image)} for time, image in self._chosen()],
        }

    def write(self, folder: Path, index: int) -> Path:
        """Write the trace of trial `index` into the results folder and return its path."""
        path = trace_path(folder, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(self.to_dict(), separators=(",", ":")), encoding="utf-8")
        aside.replace(path)
        return path

    def _chosen(self) -> list[tuple[float, NDArray[np.uint8]]]:
        """Return at most THUMBNAILS pictures over the whole trial, first and last among them."""
        count = min(THUMBNAILS, len(self._frames))
        picks = np.unique(np.linspace(0, len(self._frames) - 1, count).round().astype(int)) if count else []
        return [self._frames[pick] for pick in picks]


def trace_path(folder: Path, index: int) -> Path:
    """Return where the trace of trial `index` lies in a results folder."""
    return folder / TRACES / f"trial_{index:03d}.json"


def read_trace(folder: Path, index: int) -> dict[str, Any] | None:
    """Return the trace of trial `index`, or None when none was kept."""
    path = trace_path(folder, index)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _rounded(row: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in row]


def _chunk(chunk: ActionChunk, zero_s: float) -> dict[str, Any]:
    names = robot_spec(chunk.robot).joint_names
    every = max(1, round(CHUNK_STEP_S / chunk.step_period_s))
    rows = chunk.actions[::every][:, [chunk.joint_names.index(name) for name in names]]
    return {
        "start_s": round(chunk.start_s - zero_s, 3),
        "step_s": round(every * chunk.step_period_s, 4),
        "rows": [_rounded(row) for row in rows],
    }


def _jpeg(image: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail(THUMBNAIL_SIZE)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=72, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
