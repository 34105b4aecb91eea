# SPDX-License-Identifier: Apache-2.0
"""Make training batches of robot and image-text samples, with the same prompts, images and scales as inference.

Tensors as in model/batch.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from chatvla_control.contracts import InputKind
from chatvla_policy.model.batch import RobotRows, VlaBatch
from chatvla_policy.processing.images import ImagePreparer, PreparedImages
from chatvla_policy.processing.prompts import Prompt, Turn, question_prompt, robot_prompt
from chatvla_policy.processing.stated_numbers import stated_numbers
from chatvla_policy.processing.statistics import RobotStatistics
from chatvla_policy.processing.tokens import TextCodec

__all__ = ["Batcher", "ImageTextSample", "RobotSample", "SampleError"]


class SampleError(ValueError):
    """A sample that does not fit; the message names the part, what came and what is expected."""


@dataclass(frozen=True, kw_only=True)
class RobotSample:
    """One time of a demonstration: what was seen, what was thought, what was done next."""

    robot: str
    images: tuple[NDArray[np.uint8], ...]
    """One per camera, in the checkpoint's camera order."""
    instruction: str
    reasoning: str
    state: NDArray[np.float64]
    """Measured positions, shape (Z,), rad and m."""
    actions: NDArray[np.float64]
    """Targets, shape (up to H, A), rad and m; shorter near the end of an episode."""
    keyframe: NDArray[np.float64] | None = None
    """Targets at the next keyframe, shape (Z,), rad and m, where it is known."""


@dataclass(frozen=True, kw_only=True)
class ImageTextSample:
    """A dialogue about images, or about none; every answer in it is to be written."""

    images: tuple[NDArray[np.uint8], ...]
    question: str
    answer: str
    earlier: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class _Row:
    prompt: Prompt
    written: list[int]
    prepared: PreparedImages | None


class Batcher:
    """Samples to batches."""

    def __init__(
        self,
        *,
        codec: TextCodec,
        images: ImagePreparer,
        statistics: Mapping[str, RobotStatistics],
        queries: int,
        horizons: Mapping[str, int],
    ) -> None:
        """Take the processing of one checkpoint: `queries` action tokens, statistics and chunk length per robot."""
        self._codec, self._images = codec, images
        self._statistics, self._queries, self._horizons = statistics, queries, horizons

    def __call__(self, samples: Sequence[RobotSample | ImageTextSample]) -> VlaBatch:
        """Return the batch of `samples`. Raises SampleError when one does not fit."""
        rows = [self._row(sample) for sample in samples]
        lengths = [
            len(row.prompt.ids) + len(row.written) + (self._queries if row.prompt.kind is InputKind.ROBOT else 0)
            for row in rows
        ]
        shape = (len(rows), max(lengths))
        ids_BT = torch.full(shape, self._codec.pad_id)
        valid_BT, text_BT, query_BT = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            start, stop = len(row.prompt.ids), len(row.prompt.ids) + len(row.written)
            ids_BT[index, :stop] = torch.tensor([*row.prompt.ids, *row.written])
            valid_BT[index, :length] = True
            for begin, end in (*row.prompt.answers, (start, stop)):
                text_BT[index, begin:end] = True
            query_BT[index, stop:length] = True
        seen = [row.prepared for row in rows if row.prepared is not None]
        return VlaBatch(
            ids_BT=ids_BT,
            valid_BT=valid_BT,
            text_BT=text_BT,
            query_BT=query_BT,
            kind_B=torch.tensor([int(row.prompt.kind) for row in rows]),
            pixel_values_PX=torch.cat([item.pixel_values_PX for item in seen]) if seen else None,
            grid_thw_N3=torch.cat([item.grid_thw_N3 for item in seen]) if seen else None,
            robots=self._robots(samples),
        )

    def _row(self, sample: RobotSample | ImageTextSample) -> _Row:
        """Return the prompt, the text to write and the patches of one sample."""
        prepared = self._images(sample.images) if sample.images else None
        tokens = prepared.tokens if prepared is not None else ()
        if isinstance(sample, RobotSample):
            prompt = robot_prompt(self._codec, sample.instruction, image_tokens=tokens)
            text = sample.reasoning
        else:
            prompt = question_prompt(self._codec, sample.question, image_tokens=tokens, earlier=sample.earlier)
            text = sample.answer
        return _Row(prompt, [*self._codec.reasoning(text), self._codec.end_id], prepared)

    def _robots(self, samples: Sequence[RobotSample | ImageTextSample]) -> tuple[RobotRows, ...]:
        """Return the robot rows, grouped by robot in the order of their first sample."""
        groups: dict[str, list[tuple[int, RobotSample]]] = {}
        for index, sample in enumerate(samples):
            if isinstance(sample, RobotSample):
                groups.setdefault(sample.robot, []).append((index, sample))
        return tuple(self._group(robot, group) for robot, group in groups.items())

    def _group(self, robot: str, group: list[tuple[int, RobotSample]]) -> RobotRows:
        """Return the normalised states and chunks of one robot, short chunks padded with their last row."""
        if robot not in self._statistics or robot not in self._horizons:
            raise SampleError(f"no statistics for robot {robot!r}; there are: {', '.join(self._statistics)}")
        statistics, horizon = self._statistics[robot], self._horizons[robot]
        chunks, valid = [], torch.zeros(len(group), horizon, dtype=torch.bool)
        for row, (_, sample) in enumerate(group):
            steps = len(sample.actions)
            if sample.actions.ndim != 2 or not 1 <= steps <= horizon:
                raise SampleError(f"chunk has shape {sample.actions.shape}, expected 1 to {horizon} steps of actions")
            padded = np.concatenate([sample.actions, np.repeat(sample.actions[-1:], horizon - steps, axis=0)])
            chunks.append(statistics.normalise_actions(padded, sample.state))
            valid[row, :steps] = True
        states = np.stack([statistics.state.normalise(sample.state) for _, sample in group])
        keyframes = [statistics.state.normalise(sample.keyframe) for _, sample in group if sample.keyframe is not None]
        return RobotRows(
            robot=robot,
            rows_R=torch.tensor([index for index, _ in group]),
            state_RZ=torch.from_numpy(states),
            chunk_RHA=torch.from_numpy(np.stack(chunks)),
            valid_RH=valid,
            keyframe_RZ=torch.from_numpy(np.stack(keyframes)) if len(keyframes) == len(group) else None,
            numbers_RM=torch.from_numpy(np.stack([stated_numbers(sample.reasoning) for _, sample in group])),
        )
