# SPDX-License-Identifier: Apache-2.0
"""Turn episode records into one data set in the LeRobot layout, which appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chatvla_training.data import layout
from chatvla_training.data.record import EpisodeRecord, RecordError, decode_image, load_record
from chatvla_training.data.statistics import ImageStatistics, column_statistics
from chatvla_training.progress import progress

__all__ = ["assemble", "file_sha256"]

FILE_MB = 100
IMAGES_COUNTED = 16
"""Frames of each episode that the colour statistics look at."""


def assemble(
    records: Sequence[Path],
    folder: Path,
    *,
    robot: str,
    joint_names: Sequence[str],
    provenance: Mapping[str, Any],
    validation_share: float = 0.05,
) -> None:
    """Write the records as data set `folder`, the last `validation_share` of the episodes as split "val".

    Everything is written beside `folder` and renamed at the end. Raises RecordError when records disagree,
    FileExistsError when `folder` exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; choose another folder or remove it")
    if not records:
        raise RecordError("no episode to store")
    aside = folder.with_name(f".{folder.name}.assembling")
    shutil.rmtree(aside, ignore_errors=True)
    writer = _Writer(aside, load_record(records[0]), joint_names)
    for path in progress(records, "assemble", unit="episode"):
        writer.add(load_record(path), path)
    writer.close(robot=robot, provenance=provenance, validation_share=validation_share)
    aside.replace(folder)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, lower-case hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Writer:
    """Rows, episodes and statistics of a data set in the making."""

    def __init__(self, root: Path, first: EpisodeRecord, joint_names: Sequence[str]) -> None:
        self._root = root
        self._views = tuple(first.frames)
        self._rate_hz = first.rate_hz
        self._names = tuple(joint_names)
        self._shape = {view: decode_image(images[0]).shape for view, images in first.frames.items()}
        self._schema = layout.row_schema(views=self._views, width=len(self._names))
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._numbers: dict[str, list[np.ndarray]] = {layout.STATE: [], layout.ACTION: [], layout.IMAGE_AGE: []}
        self._colours = {view: ImageStatistics() for view in self._views}
        self._parquet: pq.ParquetWriter | None = None
        self._bytes = self._file_index = self._rows = 0

    def add(self, record: EpisodeRecord, path: Path) -> None:
        """Append one episode. Raises RecordError when its joints, views, rate or image size are not the first's."""
        if tuple(record.frames) != self._views or record.rate_hz != self._rate_hz:
            raise RecordError(
                f"{path.name} has views {list(record.frames)} at {record.rate_hz} Hz, the data set has "
                f"{list(self._views)} at {self._rate_hz} Hz"
            )
        if record.states.shape[1] != len(self._names):
            raise RecordError(f"{path.name} has {record.states.shape[1]} joints, the data set has {len(self._names)}")
        count, episode = len(record.states), len(self._episodes)
        task = self._tasks.setdefault(record.instruction, len(self._tasks))
        table = self._table(record, episode, task)
        size = sum(len(image) for images in record.frames.values() for image in images) + 400 * count
        if self._parquet is None or self._bytes + size > FILE_MB * 2**20:
            self._next_file()
        assert self._parquet is not None
        self._parquet.write_table(table, row_group_size=count)
        self._bytes += size
        for name, values in (
            (layout.STATE, record.states),
            (layout.ACTION, record.actions),
            (layout.IMAGE_AGE, record.image_age_s),
        ):
            self._numbers[name].append(values)
        for view, images in record.frames.items():
            chosen = np.linspace(0, len(images) - 1, min(IMAGES_COUNTED, len(images))).astype(int)
            decoded = [decode_image(images[index]) for index in chosen]
            if any(image.shape != self._shape[view] for image in decoded):
                raise RecordError(f"{path.name} has images of another size than {self._shape[view]} in view {view!r}")
            self._colours[view].update(decoded)
        self._episodes.append(
            {
                "episode_index": episode,
                "tasks": [record.instruction],
                "length": count,
                "data/chunk_index": 0,
                "data/file_index": self._file_index - 1,
                "dataset_from_index": self._rows,
                "dataset_to_index": self._rows + count,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                "facts": json.dumps(dict(record.facts), sort_keys=True),
                **_flat("stats/observation.state", column_statistics(record.states)),
                **_flat("stats/action", column_statistics(record.actions)),
            }
        )
        self._rows += count

    def _table(self, record: EpisodeRecord, episode: int, task: int) -> pa.Table:
        count = len(record.states)
        row = np.arange(count)
        frame = pa.array(record.frame_of_row)
        columns: dict[str, Any] = {}
        for view, images in record.frames.items():
            encoded = pa.array(list(images), pa.binary()).take(frame)
            paths = pa.nulls(count, pa.string())
            columns[layout.image_key(view)] = pa.StructArray.from_arrays([encoded, paths], ["bytes", "path"])
        for name, values in ((layout.STATE, record.states), (layout.ACTION, record.actions)):
            flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        columns[layout.REASONING] = pa.array(list(record.reasoning), pa.string()).take(frame)
        columns[layout.IMAGE_AGE] = pa.array(record.image_age_s)
        columns["timestamp"] = pa.array((row / record.rate_hz).astype(np.float32))
        columns["frame_index"] = pa.array(row)
        columns["episode_index"] = pa.array(np.full(count, episode))
        columns["index"] = pa.array(row + self._rows)
        columns["task_index"] = pa.array(np.full(count, task))
        return pa.Table.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)

    def _next_file(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
        path = self._root / layout.DATA_PATH.format(chunk_index=0, file_index=self._file_index)
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures = [f"{layout.image_key(view)}.bytes" for view in self._views]
        # A dictionary keeps a frame that many rows show only once; its page must hold a whole episode's frames.
        self._parquet = pq.ParquetWriter(
            path,
            self._schema,
            use_dictionary=[*pictures, layout.REASONING],  # pyright: ignore[reportArgumentType]
            dictionary_pagesize_limit=1 << 30,
            compression={  # pyright: ignore[reportArgumentType]
                name: "NONE" if name in pictures else "SNAPPY" for name in [*pictures, *_leaves(self._schema)]
            },
        )
        self._file_index += 1
        self._bytes = 0

    def close(self, *, robot: str, provenance: Mapping[str, Any], validation_share: float) -> None:
        """Write the metadata and the provenance with every file's hash."""
        if self._parquet is not None:
            self._parquet.close()
        total = len(self._episodes)
        held = min(total - 1, max(1, round(total * validation_share))) if validation_share > 0 else 0
        splits = {"train": f"0:{total - held}"} | ({"val": f"{total - held}:{total}"} if held else {})
        info = {
            "codebase_version": layout.CODEBASE_VERSION,
            "robot_type": robot,
            "total_episodes": total,
            "total_frames": self._rows,
            "total_tasks": len(self._tasks),
            "chunks_size": 1000,
            "data_files_size_in_mb": FILE_MB,
            "video_files_size_in_mb": 200,
            "fps": round(self._rate_hz),
            "splits": splits,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": None,
            "features": layout.features(joint_names=self._names, views=self._shape),
        }
        _write_json(self._root / layout.INFO_PATH, info)
        numbers = {name: column_statistics(np.concatenate(parts)) for name, parts in self._numbers.items()}
        pictures = {layout.image_key(view): colours.summary() for view, colours in self._colours.items()}
        _write_json(self._root / layout.STATS_PATH, numbers | pictures)
        _write_tasks(self._root / layout.TASKS_PATH, self._tasks)
        episodes = self._root / layout.EPISODES_PATH.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), episodes)
        files = sorted(path for path in self._root.rglob("*") if path.is_file())
        hashes = {path.relative_to(self._root).as_posix(): file_sha256(path) for path in files}
        _write_json(self._root / layout.PROVENANCE_PATH, {"format": 1, **provenance, "files": hashes})


def _flat(prefix: str, statistics: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": value for name, value in statistics.items()}


def _leaves(schema: pa.Schema) -> list[str]:
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    listed = [f"{field.name}.list.element" for field in schema if pa.types.is_fixed_size_list(field.type)]
    structs = [f"{field.name}.path" for field in schema if pa.types.is_struct(field.type)]
    return plain + listed + structs


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _write_tasks(path: Path, tasks: Mapping[str, int]) -> None:
    """Write the task table with the instruction as index, which pandas reads from the schema's metadata."""
    column = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    index = {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [],
        "columns": [column | {"metadata": None}, index | {"metadata": None}],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": list(tasks.values()), "__index_level_0__": list(tasks)})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)
