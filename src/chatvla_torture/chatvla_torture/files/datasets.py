# SPDX-License-Identifier: Apache-2.0
"""Make a small sound robot data set, and spoil it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chatvla_control.robot_spec import robot_spec
from chatvla_training.data import layout
from chatvla_training.data.assemble import assemble
from chatvla_training.data.episodes import EpisodeDataset
from chatvla_training.data.mixture import Group, Mixture
from chatvla_training.data.record import EpisodeRecord, encode_image, save_record

__all__ = ["HOSTILE", "make_dataset", "open_dataset"]

Spoil = Callable[[Path, np.random.Generator], None]
HORIZON = 8
_FACTS = {"task": "math_match", "split": "in_domain", "equation": "3+4", "answer": "7"}


def make_dataset(folder: Path, *, episodes: int = 4, rows: int = 30) -> None:
    """Write `episodes` episodes of slow motion of the ARX R5."""
    spec = robot_spec("arx_r5")
    paths = []
    for seed in range(episodes):
        random = np.random.default_rng(seed)
        way = np.linspace(0, 1, rows)[:, None] * random.uniform(0.0, 0.2, spec.width) + np.array(spec.home)
        frame_rows = np.arange(0, rows, 10)
        pictures = [encode_image(random.integers(0, 255, (48, 64, 3), np.uint8), codec="png") for _ in frame_rows]
        record = EpisodeRecord(
            instruction="Pick the card.",
            rate_hz=50.0,
            states=way.astype(np.float32),
            actions=(way + 0.01).astype(np.float32),
            frame_rows=frame_rows,
            frames={"top": pictures},
            reasoning=["I should pick the left card."] * len(frame_rows),
            facts=_FACTS | {"seed": seed, "cards": [["7", "left"], ["1", "middle"], ["12", "right"]]},
        )
        paths.append(folder.parent / f"{folder.name}-{seed}.npz")
        save_record(record, paths[-1])
    assemble(paths, folder, robot=spec.name, joint_names=spec.joint_names, provenance={}, validation_share=0.25)
    for path in paths:
        path.unlink()


def open_dataset(folder: Path) -> str:
    """Open the data set as training does and read every sample; return what was read and skipped."""
    data = EpisodeDataset(folder, horizon=HORIZON)
    mixture = Mixture([Group(name="robot", share=1, sources=(data,))], seed=0)
    read, skipped = 0, []
    for place in range(2 * max(len(data), 1)):
        sample, missed = mixture.sample(place)
        skipped += missed
        if not (np.isfinite(sample.state).all() and np.isfinite(sample.actions).all()):
            raise AssertionError(f"sample {sample.id} came with NaN")
        read += 1
    mixture.sha256()
    named = ", ".join(sorted({f"{name}: {reason}" for name, reason in skipped}))
    return f"read {read}, skipped {len(skipped)} {named:.300}"


def _data(folder: Path) -> Path:
    return sorted((folder / "data").glob("*/*.parquet"))[0]


def _bytes(
    pick: Callable[[Path], Path], change: Callable[[bytearray, np.random.Generator], bytes | bytearray]
) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        path = pick(folder)
        path.write_bytes(change(bytearray(path.read_bytes()), random))

    return spoil


def _flipped(data: bytearray, random: np.random.Generator) -> bytearray:
    for _ in range(int(random.integers(1, 20))):
        data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    return data


def _cut(data: bytearray, random: np.random.Generator) -> bytearray:
    return data[: int(random.integers(0, len(data)))]


def _info(change: Callable[[Any], Any]) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        path = folder / layout.INFO_PATH
        data = json.loads(path.read_text())
        changed = change(data)
        path.write_text(json.dumps(data if changed is None else changed))

    return spoil


def _text(name: str, text: str) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        (folder / name).write_text(text)

    return spoil


def _rows(change: Callable[[dict[str, list[Any]], np.random.Generator], None]) -> Spoil:
    """Return a maker that changes rows and writes a sound Parquet file of them."""

    def spoil(folder: Path, random: np.random.Generator) -> None:
        path = _data(folder)
        table = pq.read_table(path)
        columns = table.to_pydict()
        change(columns, random)
        pq.write_table(pa.table(columns, schema=table.schema), path)

    return spoil


def _column(name: str, value: float) -> Spoil:
    def change(columns: dict[str, list[Any]], random: np.random.Generator) -> None:
        row = int(random.integers(len(columns[name])))
        columns[name][row][int(random.integers(14))] = value

    return _rows(change)


def _picture(data: bytes) -> Spoil:
    def change(columns: dict[str, list[Any]], random: np.random.Generator) -> None:
        name = layout.image_key("top")
        row = 10 * int(random.integers(len(columns[name]) // 10))
        for place in range(row, min(row + 10, len(columns[name]))):
            columns[name][place] = {"bytes": data, "path": None}

    return _rows(change)


def _tasks(columns: dict[str, list[Any]], random: np.random.Generator) -> None:
    columns["task_index"][0] = 99


def _no_episodes(folder: Path, random: np.random.Generator) -> None:
    for path in (folder / "meta/episodes").glob("*/*.parquet"):
        path.unlink()


def _episode(name: str, value: Any) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        path = next((folder / "meta/episodes").glob("*/*.parquet"))
        table = pq.read_table(path)
        columns = table.to_pydict()
        columns[name][1] = value
        pq.write_table(pa.table(columns, schema=table.schema), path)

    return spoil


def _link(folder: Path, random: np.random.Generator) -> None:
    path = _data(folder)
    path.unlink()
    path.symlink_to("/etc/passwd")


def _pickled(folder: Path, random: np.random.Generator) -> None:
    """An index of frames that is a pickle: numpy must not open it."""
    EpisodeDataset(folder, horizon=HORIZON)
    np.save(folder / ".frames/top.ends.npy", np.array([{"a": 1}], object), allow_pickle=True)


HOSTILE: dict[str, Spoil] = {
    **{f"rows flipped {number}": _bytes(_data, _flipped) for number in range(6)},
    **{f"rows cut off {number}": _bytes(_data, _cut) for number in range(3)},
    "episodes flipped": _bytes(lambda folder: next((folder / "meta/episodes").glob("*/*.parquet")), _flipped),
    "episodes cut off": _bytes(lambda folder: next((folder / "meta/episodes").glob("*/*.parquet")), _cut),
    "episodes missing": _no_episodes,
    "episode past the end": _episode("dataset_to_index", 10**12),
    "episode before the start": _episode("dataset_from_index", -5),
    "facts no JSON": _episode("facts", "{"),
    "tasks cut off": _bytes(lambda folder: folder / layout.TASKS_PATH, _cut),
    "info empty": _text(layout.INFO_PATH, ""),
    "info deep": _text(layout.INFO_PATH, "[" * 100_000),
    "info a list": _text(layout.INFO_PATH, "[]"),
    "info of a later layout": _info(lambda data: data.update(codebase_version="v99")),
    "info without splits": _info(lambda data: data.pop("splits") and None),
    "info with a bad split": _info(lambda data: data.update(splits={"train": "all"})),
    "info with a split past the end": _info(lambda data: data.update(splits={"train": "0:99999"})),
    "info with fps 0": _info(lambda data: data.update(fps=0)),
    "info with fewer joints": _info(lambda data: data["features"][layout.STATE].update(names=["a"])),
    "info with a view that goes up": _info(
        lambda data: data["features"].update({layout.image_key("../../up"): data["features"][layout.image_key("top")]})
    ),
    "info without a robot": _info(lambda data: data.pop("robot_type") and None),
    "provenance missing": lambda folder, random: (folder / layout.PROVENANCE_PATH).unlink(),
    "provenance no JSON": _text(layout.PROVENANCE_PATH, "\x00"),
    "state NaN": _column(layout.STATE, float("nan")),
    "action infinite": _column(layout.ACTION, float("inf")),
    "picture empty": _picture(b""),
    "picture no picture": _picture(b"GIF89a" + bytes(50)),
    "task unknown": _rows(_tasks),
    "rows are a link": _link,
    "index is a pickle": _pickled,
}
"""Makers by name: each changes the folder in place. Opening must refuse in a sentence, or skip and name samples."""
