# SPDX-License-Identifier: Apache-2.0
"""Weights run in the types they are stored in, as on a GPU: the robots' own layers may be finer than all the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from chatvla_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from chatvla_policy.systems import SHIPPED, load_policy
from chatvla_policy.systems.chatvla1 import ChatVLA1Policy
from chatvla_policy.systems.chatvla2 import ChatVLA2Policy

SMALL = {}
COMPACT = {"objective": "flow_clean", "patch": 4, "state_skip": True, "keyframe": 1.0, "sight": 64, "numbers": 4}


def types(checkpoint: Checkpoint) -> dict[torch.dtype, set[torch.dtype]]:
    """Return the types of the robots' own layers, and of the rest."""
    own: set[torch.dtype] = set()
    rest: set[torch.dtype] = set()
    for name, weight in checkpoint.model.named_parameters():
        (own if name.startswith("expert.robots.") else rest).add(weight.dtype)
    return {"own": own, "rest": rest}


@pytest.mark.parametrize("action", [SMALL, COMPACT])
def test_a_mixed_folder_is_run_as_it_is_stored(small_model, world, tmp_path: Path, action: dict) -> None:
    exact = ChatVLA2Policy(world.checkpoint(small_model(**action)))
    save_checkpoint(tmp_path / "mixed", exact.checkpoint, storage="mixed")
    policy = ChatVLA2Policy(load_checkpoint(tmp_path / "mixed"))
    text = "I should pick the card, from 516 428."
    chunks = [one.infer(world.observation(), forced_reasoning=text).chunk.actions for one in (exact, policy)]
    widths = world.spec.upper - world.spec.lower
    assert (np.abs(chunks[1] - chunks[0]) / widths).max() < 0.02
    assert types(policy.checkpoint) == {"own": {torch.float32}, "rest": {torch.bfloat16}}


@pytest.mark.parametrize(
    ("name", "kind"), [("tiny", ChatVLA2Policy), ("tiny_toys", ChatVLA2Policy), ("tiny_chatvla1", ChatVLA1Policy)]
)
def test_shipped_policy_as_stored_gives_its_golden_chunk(name: str, kind: type[ChatVLA2Policy]) -> None:
    policy = kind(load_checkpoint(SHIPPED / name))
    assert types(policy.checkpoint) == {"own": {torch.float32}, "rest": {torch.bfloat16}}
    assert policy.check_golden() is not None


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tiny", "tiny_toys", "tiny_chatvla1"])
def test_shipped_policy_gives_its_golden_chunk_on_a_gpu(name: str) -> None:
    assert load_policy(name, device="cuda").check_golden() is not None  # type: ignore[attr-defined]
