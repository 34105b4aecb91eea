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
    """Share of the campaign's minutes; 0 where only --only runs it, for all of them."""


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part(
            name="chunks",
            summary="random action chunks, delays and clocks against the check and the player",
            target="chatvla_torture.chunks:run",
            share=0.17,
        ),
        Part(
            name="files",
            summary="hostile checkpoints, bags, data sets and texts",
            target="chatvla_torture.files.part:run",
            share=0.14,
        ),
        Part(
            name="messages",
            summary="random and mutated messages on every topic and service, clock jumps, 1 kHz",
            target="chatvla_torture.ros.messages:run",
            share=0.25,
        ),
        Part(
            name="processes",
            summary="nodes killed, stopped and restarted at random while trials run",
            target="chatvla_torture.ros.kills:run",
            share=0.26,
        ),
        Part(
            name="load",
            summary="busy processors, more cameras, a slow subscriber, a full disk, a slow policy",
            target="chatvla_torture.ros.load:run",
            share=0.06,
        ),
        Part(
            name="training",
            summary="training runs killed at random and resumed, two writers, corrupt episodes",
            target="chatvla_torture.training:run",
            share=0.1,
        ),
        Part(
            name="network",
            summary="who can be reached: discovery, services that must not move the arm, remote endpoints",
            target="chatvla_torture.ros.network:run",
            share=0.02,
        ),
        Part(
            name="long",
            summary="trials for the given minutes: memory, handles, threads, latency (only with --only long)",
            target="chatvla_torture.ros.long_run:run",
            share=0.0,
        ),
    )
}
