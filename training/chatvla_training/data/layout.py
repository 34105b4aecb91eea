# SPDX-License-Identifier: Apache-2.0
"""Say where a robot data set keeps what: the LeRobot dataset layout, version 3.0.

Source: lerobot 0.4.4, lerobot/datasets/utils.py. Rows come at the control rate. A camera slower than that repeats its
newest image over the rows until the next one; `observation.image_age` says how old it is [s], 0 where it is new.
Shapes: D joints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

__all__ = [
    "ACTION",
    "CODEBASE_VERSION",
    "DATA_PATH",
    "EPISODES_PATH",
    "IMAGE_AGE",
    "INFO_PATH",
    "PROVENANCE_PATH",
    "REASONING",
    "STATE",
    "STATS_PATH",
    "TASKS_PATH",
    "features",
    "image_key",
    "row_schema",
]

CODEBASE_VERSION = "v3.0"
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
PROVENANCE_PATH = "meta/chatvla.json"

STATE = "observation.state"
ACTION = "action"
REASONING = "reasoning"
IMAGE_AGE = "observation.image_age"


def image_key(view: str) -> str:
    """Return the column of camera `view`."""
    return f"observation.images.{view}"


def features(*, joint_names: Sequence[str], views: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the `features` entry of meta/info.json; `views` gives the shape (H, W, 3) of each camera's images."""
    names = list(joint_names)
    found: dict[str, Any] = {
        image_key(view): {"dtype": "image", "shape": list(shape), "names": ["height", "width", "channels"]}
        for view, shape in views.items()
    }
    found[STATE] = {"dtype": "float32", "shape": [len(names)], "names": names}
    found[ACTION] = {"dtype": "float32", "shape": [len(names)], "names": names}
    found[REASONING] = {"dtype": "string", "shape": [1], "names": None}
    found[IMAGE_AGE] = {"dtype": "float32", "shape": [1], "names": None}
    found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        found[name] = {"dtype": "int64", "shape": [1], "names": None}
    return found


def row_schema(*, views: Sequence[str], width: int) -> pa.Schema:
    """Return the Arrow schema of one row, for `width` joints."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [pa.field(image_key(view), image) for view in views]
    fields += [pa.field(name, pa.list_(pa.float32(), width)) for name in (STATE, ACTION)]
    fields += [pa.field(REASONING, pa.string()), pa.field(IMAGE_AGE, pa.float32()), pa.field("timestamp", pa.float32())]
    fields += [pa.field(name, pa.int64()) for name in ("frame_index", "episode_index", "index", "task_index")]
    return pa.schema(fields)
