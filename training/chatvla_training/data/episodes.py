# SPDX-License-Identifier: Apache-2.0
"""Read a robot data set for training: any frame at once, with the action chunk that follows it.

Shapes: N rows of the data set; F frames; T chunk steps; D joints.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from chatvla_control.robot_spec import robot_names, robot_spec
from chatvla_training.data import layout
from chatvla_training.data.errors import CorruptSampleError
from chatvla_training.data.frames import FrameStore
from chatvla_training.data.keyframes import keyframe_rows
from chatvla_training.data.samples import RobotSample

__all__ = ["DatasetError", "EpisodeDataset", "Wording"]

_VIEW = re.compile(r"[A-Za-z0-9_]{1,64}")
_DAMAGE = (KeyError, IndexError, TypeError, ValueError, OSError, RecursionError, AttributeError, pa.ArrowException)
Wording = Callable[[Mapping[str, Any], str, int], str]
"""(facts of the episode, stored text, draw) -> text to train on."""


class DatasetError(ValueError):
    """A folder is no data set of ours, or holds something else than was asked for."""


class EpisodeDataset:
    """Samples of a robot data set; sample `index` is the frame of that number in the split."""

    def __init__(
        self,
        folder: Path,
        *,
        split: str = "train",
        horizon: int,
        wording: Wording | None = None,
        after_end: bool = False,
        every: int = 1,
        text_age_s: float = 0.0,
    ) -> None:
        """Open `folder`; `horizon` is T; `wording` rewrites the reasoning a draw at a time.

        What it rewrites was said up to `text_age_s` before the sample.

        Of the frames, one in `every` is a sample.
        With `after_end`, steps past the end repeat the last target and count as valid: the arm has come to rest.
        Raises DatasetError when the folder is no data set or lacks `split`.
        """
        self.folder, self.split, self.horizon = folder, split, horizon
        self.name = f"{folder.name}:{split}"
        self._wording, self._after_end, self._text_age_s = wording, after_end, text_age_s
        if not (folder / layout.INFO_PATH).is_file():
            raise DatasetError(f"{folder} holds no {layout.INFO_PATH}; make a data set with ./chatvla demos")
        try:
            self._open(folder, split, every)
        except DatasetError:
            raise
        except _DAMAGE as error:
            what = f"{type(error).__name__}: {error!s:.300}"
            raise DatasetError(f"{folder} cannot be read as a data set ({what}); copy it again") from error

    def _open(self, folder: Path, split: str, every: int) -> None:
        """Read all but the images. Damaged files make JSON, Arrow and numpy raise _DAMAGE."""
        self.info: dict[str, Any] = json.loads((folder / layout.INFO_PATH).read_text(encoding="utf-8"))
        if self.info["codebase_version"] != layout.CODEBASE_VERSION:
            raise DatasetError(f"{folder} is layout {self.info['codebase_version']}, not {layout.CODEBASE_VERSION}")
        if split not in self.info["splits"]:
            raise DatasetError(f"{folder} has no split {split!r}; there are: {', '.join(self.info['splits'])}")
        files = sorted((folder / "data").glob("*/*.parquet"))
        strange = [view for view in self.views if not _VIEW.fullmatch(view)]
        if strange:
            raise DatasetError(f"{folder} names a camera {strange[0]!r:.60}; a name has letters, digits and _")
        columns = [name for name in (layout.STATE, layout.ACTION, layout.REASONING, layout.IMAGE_AGE)]
        table = pq.ParquetDataset(files).read(columns=[*columns, "task_index"])
        width = len(self.joint_names)
        self.states_ND = _matrix(table[layout.STATE], width)
        self.actions_ND = _matrix(table[layout.ACTION], width)
        age = table[layout.IMAGE_AGE].to_numpy()
        if not len(self.states_ND) == len(self.actions_ND) == len(age) or not self.info["fps"] > 0:
            raise DatasetError(f"{folder} has {len(age)} rows, and other numbers of states or actions; copy it again")
        self._row_of_frame: NDArray[np.int64] = np.flatnonzero(age == 0)
        fresh = table.take(self._row_of_frame)
        self._reasoning: list[str] = fresh[layout.REASONING].to_pylist()
        tasks = pq.read_table(folder / layout.TASKS_PATH).to_pydict()
        names = dict(zip(tasks["task_index"], tasks["__index_level_0__"], strict=True))
        self._instruction = [names[number] for number in fresh["task_index"].to_pylist()]
        self.episodes = _episodes(folder)
        first, last = (int(part) for part in self.info["splits"][split].split(":"))
        _check_episodes(folder, self.episodes, rows=len(age), last=last)
        chosen = self.episodes[first:last]
        self._robot = str(self.info["robot_type"])
        rows = (chosen[0]["dataset_from_index"], chosen[-1]["dataset_to_index"]) if chosen else (0, 0)
        self._frames = np.flatnonzero((self._row_of_frame >= rows[0]) & (self._row_of_frame < rows[1]))[::every]
        self._ends = np.array([episode["dataset_to_index"] for episode in self.episodes])
        self._stores = {view: FrameStore(files, view, folder / ".frames") for view in self.views}
        for view, store in self._stores.items():
            if len(store) != len(self._row_of_frame):
                raise DatasetError(
                    f"{folder}/.frames holds {len(store)} frames of {view}, the data set {len(self._row_of_frame)}: "
                    "remove the .frames folder, it is made anew"
                )

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Joint names in state and action order."""
        return tuple(self.info["features"][layout.STATE]["names"])

    @property
    def views(self) -> tuple[str, ...]:
        """Camera names."""
        prefix = layout.image_key("")
        return tuple(name.removeprefix(prefix) for name in self.info["features"] if name.startswith(prefix))

    @property
    def robot(self) -> str:
        """Name of the robot."""
        return self._robot

    @property
    def step_period_s(self) -> float:
        """Time between rows [s]."""
        return 1.0 / self.info["fps"]

    def __len__(self) -> int:
        """Return the number of frames of the split."""
        return len(self._frames)

    def episode_of(self, index: int) -> int:
        """Return the episode that sample `index` lies in."""
        return int(np.searchsorted(self._ends, self._row_of_frame[self._frames[index]], side="right"))

    def row_of(self, index: int) -> int:
        """Return the row of the data set at which sample `index` was seen."""
        return int(self._row_of_frame[self._frames[index]])

    def seconds_into_episode(self, index: int) -> float:
        """Return how long after its episode's beginning sample `index` was seen [s]."""
        return (self.row_of(index) - self.episodes[self.episode_of(index)]["dataset_from_index"]) * self.step_period_s

    def texts(self) -> list[str]:
        """Return the stored reasoning of all samples."""
        return [self._reasoning[frame] for frame in self._frames]

    def facts(self, episode: int) -> dict[str, Any]:
        """Return what is known of an episode: seed, equation, noise."""
        return json.loads(self.episodes[episode]["facts"])

    def chunk(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the targets (T, D) from sample `index` on, and which of them lie within the episode (T,)."""
        row = int(self._row_of_frame[self._frames[index]])
        end = int(self._ends[self.episode_of(index)])
        wanted = np.arange(row, row + self.horizon)
        valid = np.ones(self.horizon, bool) if self._after_end else wanted < end
        return self.actions_ND[np.minimum(wanted, end - 1)], valid

    def state(self, index: int) -> NDArray[np.float32]:
        """Return the measured joints [rad, m] at sample `index`, shape (D,)."""
        return self.states_ND[self._row_of_frame[self._frames[index]]]

    def keyframe(self, index: int) -> NDArray[np.float32]:
        """Return the targets [rad, m] at the keyframe that follows sample `index`, shape (D,).

        Of a robot that is not known here, the grippers are not either: its keyframes are the ends of episodes.
        """
        return self.actions_ND[self._keyframes[self.row_of(index)]]

    @cached_property
    def _keyframes(self) -> NDArray[np.int64]:
        known = self.robot in robot_names()
        grippers = [joint.unit == "m" for joint in robot_spec(self.robot).joints] if known else []
        return keyframe_rows(self.actions_ND[:, np.flatnonzero(grippers)], self._ends)

    def text(self, index: int, draw: int) -> str:
        """Return the reasoning for sample `index`, of the age and in the wording that `draw` picks."""
        if self._wording is None:
            return self._reasoning[int(self._frames[index])]
        episode = self.episode_of(index)
        return self._wording(self.facts(episode), self._reasoning[self._earlier_frame(index, episode, draw)], draw)

    def _earlier_frame(self, index: int, episode: int, draw: int) -> int:
        """Return the frame at which a text that is used at sample `index` was written."""
        frame = int(self._frames[index])
        if not self._text_age_s:
            return frame
        age_s = np.random.default_rng([draw, 0xA6E]).uniform(0.0, self._text_age_s)
        row = self._row_of_frame[frame] - age_s / self.step_period_s
        first = int(np.searchsorted(self._row_of_frame, self.episodes[episode]["dataset_from_index"]))
        return max(first, int(np.searchsorted(self._row_of_frame, row, side="right")) - 1)

    def sample(self, index: int, draw: int) -> RobotSample:
        """Return sample `index`; `draw` picks the wording when the data set is opened with one.

        Raises CorruptSampleError when an image or a number of it is damaged.
        """
        frame = int(self._frames[index])
        row = int(self._row_of_frame[frame])
        episode = self.episode_of(index)
        name = f"{self.name}/episode-{episode:06d}/row-{row - self.episodes[episode]['dataset_from_index']}"
        actions, valid = self.chunk(index)
        if not (np.isfinite(self.states_ND[row]).all() and np.isfinite(actions).all()):
            raise CorruptSampleError(name, "a state or an action is not a finite number")
        try:
            text = self.text(index, draw)
            images = {view: store.image(frame) for view, store in self._stores.items()}
        except _DAMAGE as error:
            raise CorruptSampleError(name, f"{type(error).__name__}: {error!s:.200}") from error
        return RobotSample(
            id=name,
            robot=self.robot,
            images=images,
            instruction=self._instruction[frame],
            state=self.states_ND[row],
            reasoning=text,
            actions=actions,
            valid=valid,
            keyframe=self.keyframe(index),
        )

    def sha256(self) -> str:
        """Return a fingerprint of the data set: of the hashes of all its files, as stored when it was made."""
        return data_set_sha256(self.folder)


def data_set_sha256(folder: Path) -> str:
    """Return the fingerprint of the data set in `folder` (see `EpisodeDataset.sha256`). Raises DatasetError."""
    try:
        provenance = json.loads((folder / layout.PROVENANCE_PATH).read_text(encoding="utf-8"))
        files = json.dumps(provenance["files"], sort_keys=True)
    except _DAMAGE as error:
        raise DatasetError(f"{folder} has no readable {layout.PROVENANCE_PATH} ({error}); copy it again") from error
    return hashlib.sha256(files.encode()).hexdigest()


def _check_episodes(folder: Path, episodes: list[dict[str, Any]], *, rows: int, last: int) -> None:
    """Raise DatasetError unless the episodes follow each other from row 0 to the last row."""
    ends = [0, *(episode["dataset_to_index"] for episode in episodes)]
    starts = [episode["dataset_from_index"] for episode in episodes]
    if starts != ends[:-1] or ends[-1] != rows or any(a >= b for a, b in pairwise(ends)) or last > len(episodes):
        raise DatasetError(f"{folder}: its {len(episodes)} episodes do not cover its {rows} rows; copy it again")


def _matrix(column: Any, width: int) -> NDArray[np.float32]:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(-1, width)


def _episodes(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "meta/episodes").glob("*/*.parquet"))
    wanted = ["episode_index", "length", "dataset_from_index", "dataset_to_index", "facts"]
    return pq.ParquetDataset(files).read(columns=wanted).to_pylist()
