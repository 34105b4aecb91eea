# SPDX-License-Identifier: Apache-2.0
"""Keep what the frozen language model tells the action expert, so that stage 2 need not run it again.

Each frame's states at the action tokens (and image tokens, where the expert looks) and at its reasoning are computed
once for `draws` wordings and written end to end into one file; stage 2 then reads them back. What a run writes belongs
to one checkpoint and one data set: both fingerprints are part of the folder's name, and a killed run goes on after the
last whole block. A frame that can't be read has features of length 0, and is no sample.
Tensors: F frames, S image and action tokens, V language width, L reasoning tokens, R rows, H chunk steps, A actions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from chatvla_policy.model.batch import RobotRows
from chatvla_policy.processing.stated_numbers import stated_numbers
from chatvla_policy.processing.statistics import RobotStatistics
from chatvla_training.data.displacement import Displacement
from chatvla_training.data.episodes import EpisodeDataset

__all__ = [
    "FeatureBatch",
    "FeatureCollate",
    "FeatureSample",
    "FeatureSource",
    "FeatureStore",
    "FeatureWriter",
    "wording",
]

START_S = 1.0
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class FeatureBatch:
    """Kept features of some rows, and the rows."""

    tokens_RSV: Tensor
    hidden_RLV: Tensor
    valid_RL: Tensor
    rows: tuple[RobotRows, ...]

    @property
    def robot(self) -> RobotRows:
        """The rows; all of one robot."""
        return self.rows[0]


class FeatureWriter:
    """Append features frame by frame; `finish` makes them readable."""

    def __init__(self, folder: Path, *, tokens: int, width: int, dtype: str) -> None:
        """Open `folder`, going on after the blocks that are whole."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._shape = {"tokens": tokens, "width": width, "dtype": dtype}
        self._dtype = DTYPES[dtype]
        progress_path = folder / "progress.json"
        self.lengths: list[int] = json.loads(progress_path.read_text()) if progress_path.exists() else []
        self._data = (folder / "features.bin").open("r+b" if (folder / "features.bin").exists() else "w+b")
        self._data.truncate(sum(self.lengths) * self._row_bytes)
        self._data.seek(0, 2)

    @property
    def _row_bytes(self) -> int:
        return self._shape["width"] * torch.empty(0, dtype=self._dtype).element_size()  # type: ignore[operator]

    def append(self, features: Sequence[Tensor | None]) -> None:
        """Write the next frames, each (S + L, V), action tokens first; None for one that can't be read."""
        for joined in features:
            if joined is not None:
                self._data.write(joined.to(self._dtype).contiguous().cpu().view(torch.uint8).numpy().tobytes())
            self.lengths.append(0 if joined is None else len(joined))
        self._data.flush()
        aside = self.folder / "progress.tmp"
        aside.write_text(json.dumps(self.lengths))
        aside.replace(self.folder / "progress.json")

    def finish(self) -> None:
        """Mark the features as complete."""
        self._data.close()
        aside = self.folder / "features.tmp"
        aside.write_text(json.dumps({**self._shape, "lengths": self.lengths}))
        aside.replace(self.folder / "features.json")
        (self.folder / "progress.json").unlink(missing_ok=True)


class FeatureStore:
    """Kept features by number."""

    def __init__(self, folder: Path) -> None:
        """Open what FeatureWriter finished. Raises FileNotFoundError when it did not."""
        data = json.loads((folder / "features.json").read_text())
        self._tokens, self._width = data["tokens"], data["width"]
        self._dtype = DTYPES[data["dtype"]]
        self._ends = np.cumsum(data["lengths"])
        self._path = folder / "features.bin"
        self._map: np.memmap | None = None

    def __len__(self) -> int:
        """Return the number of frames, counted once per wording."""
        return len(self._ends)

    def __getstate__(self) -> dict[str, object]:
        """Leave the open map behind: a worker process opens its own."""
        return {**self.__dict__, "_map": None}

    def frames(self, draws: int) -> NDArray[np.int64]:
        """Return the numbers of the frames that could be read, in each of `draws` wordings."""
        lengths_FN = np.diff(self._ends, prepend=0).reshape(-1, draws)
        return np.flatnonzero(lengths_FN.all(axis=1))

    def read(self, number: int) -> tuple[Tensor, Tensor]:
        """Return action tokens (S, V) and reasoning (L, V) of one frame."""
        if self._map is None:
            self._map = np.memmap(self._path, np.uint8, "r")
        size = self._width * torch.empty(0, dtype=self._dtype).element_size()
        start = int(self._ends[number - 1]) if number else 0
        raw = np.array(self._map[start * size : int(self._ends[number]) * size])
        joined = torch.from_numpy(raw).view(self._dtype).view(-1, self._width)
        return joined[: self._tokens], joined[self._tokens :]


@dataclass(frozen=True, kw_only=True)
class FeatureSample:
    """Kept features of one frame and wording, with the robot's state and chunk."""

    id: str
    robot: str
    tokens_SV: Tensor
    hidden_LV: Tensor
    state: NDArray[np.float32]
    actions: NDArray[np.float32]
    valid: NDArray[np.bool_]
    keyframe: NDArray[np.float32]
    numbers: NDArray[np.float32]


def wording(data: EpisodeDataset, number: int, *, draws: int, seed: int) -> tuple[int, int]:
    """Return the sample's index and the draw of kept feature `number`, of `draws` for each frame."""
    return number // draws, seed * len(data) * draws + number


class FeatureSource:
    """The frames of a data set that could be read, with kept features in the place of images and text."""

    def __init__(
        self,
        data: EpisodeDataset,
        store: FeatureStore,
        *,
        draws: int,
        seed: int = 0,
        starts: int = 1,
        displacement: Displacement | None = None,
    ) -> None:
        """Join `data` with its features; `displacement` moves joints.

        `store` holds `draws` wordings of each frame, those that `wording` draws with `seed`. Samples of an episode's
        first second come `starts` times.
        """
        self.name, self._data, self._store, self._draws = f"features:{data.name}", data, store, draws
        self._seed = seed
        frame_N = store.frames(draws)
        first_N = frame_N[[data.seconds_into_episode(int(index)) < START_S for index in frame_N]]
        self._frame_N = np.concatenate([frame_N, np.repeat(first_N, starts - 1)])
        self._displacement = displacement

    def __len__(self) -> int:
        """Return the number of frames, those that come several times counted so."""
        return len(self._frame_N)

    def sample(self, index: int, draw: int) -> FeatureSample:
        """Return frame `index` with the wording and the displacement that `draw` picks."""
        index = int(self._frame_N[index])
        number = index * self._draws + draw % self._draws
        tokens_SV, hidden_LV = self._store.read(number)
        actions, valid = self._data.chunk(index)
        state = self._data.state(index)
        if self._displacement is not None:
            state, actions = self._displacement(state, actions, draw)
        return FeatureSample(
            id=f"{self._data.name}/frame-{index}",
            robot=self._data.robot,
            tokens_SV=tokens_SV,
            hidden_LV=hidden_LV,
            state=state,
            actions=actions,
            valid=valid,
            keyframe=self._data.keyframe(index),
            numbers=stated_numbers(self._data.text(*wording(self._data, number, draws=self._draws, seed=self._seed))),
        )

    def sha256(self) -> str:
        """Return the fingerprint of the data set."""
        return self._data.sha256()


class FeatureCollate:
    """Feature samples of one robot to batches, scaled by the checkpoint's statistics."""

    def __init__(self, statistics: Mapping[str, RobotStatistics]) -> None:
        self._statistics = statistics

    def __call__(self, samples: Sequence[FeatureSample]) -> FeatureBatch:
        """Return the batch of `samples`."""
        statistics = self._statistics[samples[0].robot]
        hidden_RLV = pad_sequence([sample.hidden_LV for sample in samples], batch_first=True)
        lengths_R = torch.tensor([len(sample.hidden_LV) for sample in samples])
        states = np.stack([sample.state for sample in samples])
        chunks = np.stack([sample.actions for sample in samples])
        rows = RobotRows(
            robot=samples[0].robot,
            rows_R=torch.arange(len(samples)),
            state_RZ=torch.from_numpy(statistics.state.normalise(states)),
            chunk_RHA=torch.from_numpy(statistics.normalise_actions(chunks, states)),
            valid_RH=torch.from_numpy(np.stack([sample.valid for sample in samples])),
            keyframe_RZ=torch.from_numpy(statistics.state.normalise(np.stack([sample.keyframe for sample in samples]))),
            numbers_RM=torch.from_numpy(np.stack([sample.numbers for sample in samples])),
        )
        return FeatureBatch(
            tokens_RSV=torch.stack([sample.tokens_SV for sample in samples]),
            hidden_RLV=hidden_RLV,
            valid_RL=torch.arange(hidden_RLV.shape[1]) < lengths_R[:, None],
            rows=(rows,),
        )
