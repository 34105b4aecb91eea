# SPDX-License-Identifier: Apache-2.0
"""The recipe of a run that takes a second; a damaged picture."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from chatvla_training.recipe import Recipe


def small_recipe(folder: Path, llava: Path, **changes):
    values = {
        "name": "small",
        "summary": "",
        "stage": "stage1",
        "size": "micro",
        "data": str(folder),
        "image_text": f"qa={llava}",
        "moe": "dynamic",
        "experts": 2,
        "top_k": 1,
        "relative_actions": True,
        "horizon": 8,
        "steps": 6,
        "batch": 8,
        "micro_batch": 4,
        "lr": 1e-3,
        "lr_end": 1e-4,
        "warmup": 2,
        "ema": 0.9,
        "precision": "fp32",
        "workers": 0,
        "validate_every": 3,
        "validation_batches": 1,
        "checkpoint_every": 2,
        "storage": "as_is",
    }
    return Recipe(**(values | changes))


def with_damaged_picture(data: Path, out: Path, row: int) -> Path:
    """Copy a data set to `out`, the picture that is new at `row` and shown in ten rows being none; return `out`."""
    shutil.copytree(data, out, ignore=shutil.ignore_patterns(".frames"))
    path = next((out / "data").glob("*/*.parquet"))
    table = pq.read_table(path)
    columns = table.to_pydict()
    columns["observation.images.top"][row : row + 10] = [{"bytes": b"no picture", "path": None}] * 10
    pq.write_table(pa.table(columns, schema=table.schema), path)
    return out
