# SPDX-License-Identifier: Apache-2.0
"""Serve the robot of node_robot.py: the policy node with a clock around its policy.

`python -m benchmarks.node_served TIMINGS --ros-args ...` runs the policy node; when it ends, the file TIMINGS holds, as
JSON, every inference's begin, end and stages, and the times of the bare policy, called before the node takes it over.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chatvla_control.contracts import ActionChunk, Observation, Policy
from chatvla_policy.ros.loading import load
from chatvla_policy.ros.parameters import PolicyParameters
from chatvla_policy.ros.policy_node import main as run_node

__all__ = ["BARE_RUNS", "FORCED_TEXT", "TUNINGS"]

BARE_RUNS = 30
FORCED_TEXT = "I should pick the left card."
TUNINGS: dict[str, dict[str, Any]] = {
    "fresh": {"reuse": "never"},
    "reused": {"reuse": "refresh", "reason_every_s": 60.0},
    "forced": {"reuse": "never"},
}
"""Parameters of the node in each phase."""


class Clocked:
    """Keeps when each inference of a policy began and ended."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.bare_ms: dict[str, list[float]] = {}

    def load(self, parameters: PolicyParameters) -> Policy:
        """Return the policy of the parameters, timed bare first, then clocked."""
        policy: Any = load(parameters)
        # As the node's own inference thread.
        torch.set_num_threads(parameters.threads)
        for phase, tuning in TUNINGS.items():
            self.bare_ms[phase] = _bare_ms(policy, tuning, forced=FORCED_TEXT if phase == "forced" else None)
        policy.reset(parameters.seed)
        infer = policy.infer

        def clocked(observation: Observation, forced: str | None = None, previous: ActionChunk | None = None) -> Any:
            begun_s = time.time()
            inference = infer(observation, forced, previous)
            ended_s = time.time()
            stages = policy.stage_seconds
            self.spans.append(
                {
                    "stamp_s": observation.stamp_s,
                    "begun_s": begun_s,
                    "ended_s": ended_s,
                    "source": inference.reasoning.source.name.lower(),
                    "preprocess": stages.preprocess,
                    "reasoning": stages.reasoning,
                    "denoise": stages.denoise,
                }
            )
            return inference

        policy.infer = clocked
        return policy


def _bare_ms(policy: Any, tuning: dict[str, Any], *, forced: str | None) -> list[float]:
    """Return the times [ms] of BARE_RUNS inferences as a loop without any node makes them."""
    kept = policy.settings
    fields = {**tuning, "reuse": type(kept.reuse)(tuning["reuse"])}
    policy.settings = replace(kept, **fields, commit_s=0.3)
    rng, spec, times_ms, chunk = np.random.default_rng(0), policy.setup.spec, [], None
    for run in range(BARE_RUNS + 3):
        image = rng.integers(0, 255, (240, 320, 3), np.uint8)
        observation = Observation(
            images={view: image for view in policy.setup.cameras},
            image_stamps_s={view: 0.1 * run for view in policy.setup.cameras},
            joint_positions=np.array(spec.home),
            instruction="Pick the card with the answer.",
            stamp_s=0.1 * run,
        )
        begun_s = time.perf_counter()
        chunk = policy.infer(observation, forced, chunk).chunk
        times_ms.append(1e3 * (time.perf_counter() - begun_s))
    policy.settings = kept
    return times_ms[3:]


if __name__ == "__main__":
    clocked = Clocked()
    code = run_node(loader=clocked.load)
    Path(sys.argv[1]).write_text(json.dumps({"bare_ms": clocked.bare_ms, "spans": clocked.spans}), encoding="utf-8")
    sys.exit(code)
