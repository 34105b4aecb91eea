# SPDX-License-Identifier: Apache-2.0
"""Name what can be wrong with a checkpoint folder."""

__all__ = ["CheckpointError", "GoldenMismatchError"]


class CheckpointError(ValueError):
    """The folder is no usable checkpoint; the message is one sentence naming the first mismatch and the remedy."""


class GoldenMismatchError(CheckpointError):
    """The loaded model does not give the chunk that was stored with it."""
