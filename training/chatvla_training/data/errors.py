# SPDX-License-Identifier: Apache-2.0
"""Name what can be wrong with training data."""

from __future__ import annotations

__all__ = ["CorruptSampleError", "SourceError"]


class SourceError(ValueError):
    """A source of samples can't be opened; the message says why."""


class CorruptSampleError(ValueError):
    """One sample can't be read; it is skipped and counted."""

    def __init__(self, sample: str, reason: str) -> None:
        super().__init__(sample, reason)
        self.sample, self.reason = sample, reason

    def __str__(self) -> str:
        """Return sample and reason."""
        return f"{self.sample}: {self.reason}"
