# SPDX-License-Identifier: Apache-2.0
"""List the parts of the campaign: what each attacks, and which share of the time it gets."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PARTS", "Part"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part."""

    name: str
    summary: str
    target: str
    """`module:function`, called with a PartRun."""
    share: float
    """Share of the campaign's minutes; 0 where only --only runs it."""


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part(
            name="chunks",
            summary="random action chunks, delays and clocks against the check and the player",
            target="chatvla_torture.chunks:run",
            share=0.2,
        ),
    )
}
