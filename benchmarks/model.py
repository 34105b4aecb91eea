# SPDX-License-Identifier: Apache-2.0
"""Measure the model: mixture of experts, decoding, upcycling (model_moe) and reasoning, denoising (model_action)."""

from __future__ import annotations

from typing import Any

from benchmarks import model_action, model_moe

__all__ = ["measure"]


def measure() -> dict[str, dict[str, Any]]:
    """Return the figures of both halves; takes two to three minutes on one core."""
    return {**model_moe.measure(), **model_action.measure()}
