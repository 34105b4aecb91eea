# SPDX-License-Identifier: Apache-2.0
"""Turn a mixture into numbered batches, made ahead by worker processes.

Batch m of device r of w holds the places (m w + r) B ... of the stream: a pure function of its number, so the workers
change how fast batches come, never what is in them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from chatvla_training.data.mixture import Mixture

__all__ = ["BatchStream", "LoadedBatch"]

Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class LoadedBatch(Generic[Batch]):
    """A collated batch and where it came from."""

    batch: Batch
    ids: tuple[str, ...]
    """Ids of its samples, in order."""
    skipped: tuple[tuple[str, str], ...] = field(default=())
    """(id, reason) of corrupt samples that others stand in for."""


class BatchStream(Dataset[LoadedBatch[Any]]):
    """Batches by number, for one device."""

    def __init__(
        self,
        mixture: Mixture,
        collate: Callable[[Sequence[Any]], Any],
        *,
        batch: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._mixture, self._collate = mixture, collate
        self._batch, self._rank, self._world = batch, rank, world

    def __getitem__(self, number: int) -> LoadedBatch[Any]:
        """Return batch `number` of this device."""
        first = (number * self._world + self._rank) * self._batch
        samples: list[Any] = []
        skipped: list[tuple[str, str]] = []
        for place in range(first, first + self._batch):
            sample, missed = self._mixture.sample(place)
            samples.append(sample)
            skipped += missed
        return LoadedBatch(
            batch=self._collate(samples), ids=tuple(sample.id for sample in samples), skipped=tuple(skipped)
        )

    def iterate(self, start: int, stop: int, *, workers: int) -> Iterator[LoadedBatch[Any]]:
        """Yield batches `start` to `stop` - 1 in order, made ahead by `workers` processes (0: in this one)."""
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_start_worker,
            pin_memory=False,
        )
        return iter(loader)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C goes to the whole process group; the run finishes its step, which may still need a batch.
    os.setpgid(0, 0)
    # Killed with the run by name, it may not bring the run down first: torch takes only code 0 for an orderly end.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
