# SPDX-License-Identifier: Apache-2.0
"""What the scheduler is told of its two clocks and the seam, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counts", "SchedulerSettings"]


@dataclass(frozen=True, kw_only=True)
class SchedulerSettings:
    """The two clocks and the seam; seconds."""

    chunk_period_s: float = 0.5
    scene_change: float = 0.01
    """Share of the image, 0 .. 1, that must differ, the robot standing as before, for a new text before its time; above
    1 switches this off."""
    lead_s: float = 0.01
    """Time from the end of inference until the driver plays the chunk."""
    blend_s: float = 0.2
    """Time over which an offset at a seam fades out."""
    chunking: bool = True
    """Let the policy keep the part of the plan that is played during inference."""


@dataclass(kw_only=True)
class Counts:
    """What happened since the start, counts."""

    chunks: int = 0
    dropped_late: int = 0
    """Chunks with no row left to play when they were ready."""
    dropped_stale: int = 0
    """Results for an instruction or override that was over."""
    beyond_commit: int = 0
    """Chunks that came later than foreseen: their seam was bridged."""
    failures: int = 0
