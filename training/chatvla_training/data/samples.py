# SPDX-License-Identifier: Apache-2.0
"""Say what one training sample is, before any tokeniser or tensor.

Shapes: H, W image height and width; T chunk steps; D joints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chatvla_training.data.errors import CorruptSampleError, SourceError

__all__ = ["ChatSample", "RobotSample", "Sample", "SampleSource", "Turn", "first_readable", "readable"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class ChatSample:
    """Images and a dialogue about them; no action."""

    id: str
    images: tuple[NDArray[np.uint8], ...]
    """RGB images, each (H, W, 3); empty for text alone."""
    turns: tuple[Turn, ...]
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Further labels that an auxiliary objective may ask for."""


@dataclass(frozen=True, kw_only=True)
class RobotSample:
    """What the robot saw, what it should think, and where it should go."""

    id: str
    robot: str
    """RobotSpec name."""
    images: Mapping[str, NDArray[np.uint8]]
    """RGB image per view, (H, W, 3)."""
    instruction: str
    state: NDArray[np.float32]
    """Measured joints [rad, m], shape (D,)."""
    reasoning: str
    actions: NDArray[np.float32]
    """Targets [rad, m], shape (T, D); row 0 is the target at the time of the images."""
    valid: NDArray[np.bool_]
    """False past the episode's end, shape (T,)."""
    keyframe: NDArray[np.float32] | None = None
    """Targets [rad, m] at the next keyframe, shape (D,)."""


Sample = ChatSample | RobotSample


class SampleSource(Protocol):
    """Numbered samples; the same number and draw give the same sample on every machine."""

    name: str

    def __len__(self) -> int:
        """Return how many numbers there are."""
        ...

    def sample(self, index: int, draw: int) -> Any:
        """Return sample `index`, a Sample or what the objective takes; `draw` seeds what is random, such as wording.

        Raises CorruptSampleError when it can't be read.
        """
        ...

    def sha256(self) -> str:
        """Return a fingerprint of the data behind the samples."""
        ...


def readable(*sources: SampleSource) -> Iterator[Any]:
    """Yield the samples of `sources`, one source after the other, that can be read."""
    for source in sources:
        for index in range(len(source)):
            try:
                sample = source.sample(index, 0)
            except CorruptSampleError:
                continue
            yield sample


def first_readable(*sources: SampleSource) -> Any:
    """Return the first sample of `sources` that can be read. Raises SourceError when there is none."""
    for sample in readable(*sources):
        return sample
    raise SourceError(f"no sample of {', '.join(source.name for source in sources)} can be read; copy the data again")
