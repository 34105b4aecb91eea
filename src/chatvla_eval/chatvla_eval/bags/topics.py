# SPDX-License-Identifier: Apache-2.0
"""Say which topics an evaluation needs in its bag, and match topic names against patterns."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

__all__ = ["EVALUATION_TOPICS", "TRIAL_TOPIC", "absolute_patterns", "is_selected"]

TRIAL_TOPIC = "rollout/trial"
"""Beginning and end of each trial as JSON (ros/trial_marks.py): what no other topic of a rollout says."""
EVALUATION_TOPICS = (
    "camera/*/image_raw",
    "camera/*/camera_info",
    "joint_states",
    "joint_command",
    "instruction",
    "reasoning",
    "action_chunk",
    "router",
    "sim/bench_state",
    TRIAL_TOPIC,
    "/diagnostics",
    "/clock",
)
"""Relative to the namespace, or absolute with a slash in front; * stands for any characters."""


def absolute_patterns(patterns: Sequence[str], namespace: str) -> tuple[str, ...]:
    """Return `patterns` with the namespace in front of the relative ones."""
    prefix = "/" + namespace.strip("/")
    return tuple(p if p.startswith("/") else f"{prefix.rstrip('/')}/{p}" for p in patterns)


def is_selected(topic: str, patterns: Sequence[str]) -> bool:
    """Return whether the absolute `topic` name fits one of the absolute `patterns`."""
    return any(fnmatchcase(topic, pattern) for pattern in patterns)
