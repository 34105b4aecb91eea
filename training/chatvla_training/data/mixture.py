# SPDX-License-Identifier: Apache-2.0
"""Mix sources of samples in an exact ratio, in an order that the seed alone decides.

The stream is cut into blocks of sum(ratio) places; each block holds exactly ratio[g] samples of group g, in a drawn
order. Within a group every sample comes once before any comes again, in a new order each time. Place k of the stream is
a pure function of (seed, k): a run resumes at any place with no state but its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatvla_training.data.errors import CorruptSampleError, SourceError
from chatvla_training.data.samples import SampleSource

__all__ = ["Group", "Mixture", "Pick"]

TRIES = 64
"""Neighbours tried in place of a corrupt sample before the stream gives up."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Sources that share one part of the ratio, each with a weight per sample of one."""

    name: str
    share: int
    sources: tuple[SampleSource, ...]

    def __len__(self) -> int:
        """Return the number of samples in all sources."""
        return sum(len(source) for source in self.sources)


@dataclass(frozen=True, kw_only=True)
class Pick:
    """What stands at one place of the stream."""

    group: int
    index: int
    """Number of the sample within the group."""
    draw: int
    """Seed of what is random about the sample."""


class Mixture:
    """An endless stream of samples with random access."""

    def __init__(self, groups: Sequence[Group], *, seed: int) -> None:
        """Mix `groups`; those with share 0 or no source are left out. Raises SourceError when nothing remains."""
        self.groups = tuple(group for group in groups if group.share > 0 and group.sources)
        self.seed = seed
        if not self.groups:
            raise SourceError("the mixture has no source with a share above 0")
        for group in self.groups:
            if len(group) == 0:
                raise SourceError(f"group {group.name!r} of the mixture has no sample")
        self._pattern = np.repeat(np.arange(len(self.groups)), [group.share for group in self.groups])

    def pick(self, place: int) -> Pick:
        """Return what stands at `place`, 0 or more."""
        block, offset = divmod(place, len(self._pattern))
        order = _block_order(self.seed, block, len(self._pattern))
        pattern = self._pattern[order]
        group = int(pattern[offset])
        nth = block * self.groups[group].share + int(np.count_nonzero(pattern[:offset] == group))
        size = len(self.groups[group])
        turn, rest = divmod(nth, size)
        index = int(_epoch_order(self.seed, group, turn, size)[rest])
        draw = int(np.random.default_rng([self.seed, 3, place]).integers(2**31))
        return Pick(group=group, index=index, draw=draw)

    def sample(self, place: int) -> tuple[Any, list[tuple[str, str]]]:
        """Return the sample at `place`, and (id, reason) of corrupt ones that it stands in for.

        A corrupt sample's place is taken by the next readable one of its group. Raises SourceError when TRIES in a row
        can't be read.
        """
        pick = self.pick(place)
        group = self.groups[pick.group]
        skipped: list[tuple[str, str]] = []
        for step in range(min(TRIES, len(group))):
            index = (pick.index + step) % len(group)
            for source in group.sources:
                if index < len(source):
                    break
                index -= len(source)
            try:
                return source.sample(index, pick.draw), skipped
            except CorruptSampleError as error:
                skipped.append((error.sample, error.reason))
        raise SourceError(f"{len(skipped)} samples in a row can't be read; the first: {skipped[0][0]}: {skipped[0][1]}")

    def left_out(self) -> dict[str, dict[str, int]]:
        """Return, by source, how many of its samples were not taken for which reason."""
        counted = {name: dict(getattr(source, "left_out", {})) for name, source in self._named().items()}
        return {name: reasons for name, reasons in counted.items() if reasons}

    def sha256(self) -> dict[str, str]:
        """Return the fingerprint of every source by name."""
        return {name: source.sha256() for name, source in self._named().items()}

    def _named(self) -> dict[str, Any]:
        """Return the sources by name; a name that comes again is numbered."""
        found: dict[str, Any] = {}
        for source in (source for group in self.groups for source in group.sources):
            same = sum(name.partition(" #")[0] == source.name for name in found)
            found[f"{source.name} #{same + 1}" if same else source.name] = source
        return found


@lru_cache(maxsize=4096)
def _block_order(seed: int, block: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 1, block]).permutation(length)


@lru_cache(maxsize=8)
def _epoch_order(seed: int, group: int, turn: int, size: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 2, group, turn]).permutation(size)
