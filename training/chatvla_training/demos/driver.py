# SPDX-License-Identifier: Apache-2.0
"""Let a trained policy drive until the expert takes over: demonstrations from where the policy's own mistakes lead.

What a policy gets wrong brings it where no demonstration was; the expert's way back from there is what it lacks
(DAgger, Ross et al. 2011; with a person who takes over: HG-DAgger, Kelly et al. 2019).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from chatvla_control.contracts import ActionChunk
from chatvla_sim.closed_loop import ClosedLoop

__all__ = ["lead"]

REPLAN_S = 0.5
"""As in evaluation."""


def lead(loop: ClosedLoop, checkpoint: str, instruction: str, duration_s: float, seed: int) -> None:
    """Drive `loop` with the policy of `checkpoint` for `duration_s` of simulated time; refused chunks are dropped.

    Raises CheckpointError for a checkpoint that cannot be loaded.
    """
    policy = _policy(checkpoint)
    policy.reset(seed)
    previous: ActionChunk | None = None
    ticks = max(1, round(REPLAN_S * loop.bench.spec.rate_hz))
    for tick in range(round(duration_s * loop.bench.spec.rate_hz)):
        if tick % ticks == 0:
            chunk = policy.infer(loop.observe(instruction), None, previous).chunk
            previous = chunk if loop.accept(chunk) is None else previous
        loop.tick()


@cache
def _policy(checkpoint: str) -> Any:
    """Return the policy, loaded once per process, keeping its text as evaluation does."""
    import torch

    from chatvla_policy.systems import load_policy
    from chatvla_policy.systems.settings import Reuse

    torch.set_num_threads(1)
    policy: Any = load_policy(checkpoint)
    policy.settings = replace(policy.settings, reuse=Reuse.REFRESH)
    return policy
