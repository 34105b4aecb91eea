# SPDX-License-Identifier: Apache-2.0
"""Give a text to everything that takes one: the policy, its forced reasoning, the expert's parser, scorer, overlay."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from chatvla_control.chunk_check import check_chunk
from chatvla_control.contracts import Observation
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.forced_text import LONGEST_TEXT
from chatvla_eval.reasoning_text import parse_reasoning
from chatvla_policy.runtime.overlay import draw_overlay
from chatvla_policy.systems import load_policy

__all__ = ["known_policy", "open_text"]


@cache
def known_policy(folder: Path) -> object:
    """Return the policy of a checkpoint, loaded once."""
    return load_policy(folder)


def open_text(folder: Path, text: str, as_what: str) -> str:
    """Act on `text` as "instruction", "forced" or "question"; return what came of it.

    Raises ValueError where it is refused, AssertionError when a chunk leaves the limits. Texts longer than the node
    takes are refused as the node does.
    """
    if not 1 <= len(text.strip()) <= LONGEST_TEXT:
        return "refused by its length"
    policy, spec = known_policy(folder), robot_spec("arx_r5")
    home = np.clip(np.array(spec.home), spec.lower, spec.upper)
    image = np.full((240, 320, 3), 90, np.uint8)
    parse_reasoning(text)
    if as_what == "question":
        answer = policy.ask(text, {"top": image})  # type: ignore[attr-defined]
        return f"answered {len(answer)} characters"
    policy.reset(0)  # type: ignore[attr-defined]
    observation = Observation(
        images={"top": image},
        image_stamps_s={"top": 100.0},
        joint_positions=home,
        instruction=text if as_what == "instruction" else "Pick the card with the correct answer.",
        stamp_s=100.0,
    )
    forced = text if as_what == "forced" else None
    if forced is not None:
        try:
            policy.check_forced(forced)  # type: ignore[attr-defined]
        except ValueError as error:
            return f"refused: {error}"
    inference = policy.infer(observation, forced_reasoning=forced)  # type: ignore[attr-defined]
    fault = check_chunk(inference.chunk, spec, now_s=100.1, measured=home)
    draw_overlay(
        image, view="top", reasoning=inference.reasoning, chunk=inference.chunk, spec=spec, now_s=100.1, note=text
    )
    if not np.isfinite(inference.chunk.actions).all():
        raise AssertionError("the chunk holds NaN")
    return "acted" if fault is None else f"chunk refused: {fault.code.value}"
