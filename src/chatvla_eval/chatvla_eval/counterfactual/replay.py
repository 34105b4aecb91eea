# SPDX-License-Identifier: Apache-2.0
"""Ask a policy about one frame under every dose of reasoning, and again with other noise. No ROS.

The noise of all doses is that of the base, so that only the text differs; the floor is the base text with other noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chatvla_control.contracts import Observation, Policy
from chatvla_control.scene import SceneObject, SceneTruth
from chatvla_eval.counterfactual.doses import BASE, DOSE_NAMES, dose_texts
from chatvla_eval.counterfactual.heading import heading, path_distance_m, reference_paths, tool_path
from chatvla_eval.policies import make_policy
from chatvla_sim.benches import make_bench
from chatvla_sim.closed_loop import ClosedLoop

__all__ = ["FrameSettings", "replay_frame"]

_MM = 1000.0


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """Which frame: the first of a trial, and how often its base text is sampled again."""

    task: str
    policy: str
    split: str
    seed: int
    resamples: int = 4


def replay_frame(settings: FrameSettings) -> dict[str, Any]:
    """Return what the policy does on the first frame of one trial, under its own and every given reasoning."""
    bench = make_bench(settings.task)
    try:
        truth = bench.reset(split=settings.split, seed=settings.seed)
        policy = make_policy(settings.policy, task=settings.task, spec=bench.spec, truth=bench.truth)
        observation = ClosedLoop(bench).observe(truth.instruction, () if policy.privileged else None)
        other = _other(truth, settings.seed)
        candidates = {item.name: item.place for item in truth.objects if item.role == other.role}
        references = reference_paths(bench.spec, truth, observation, candidates)
        return {
            "seed": settings.seed,
            "policy": policy.name,
            "privileged": policy.privileged,
            "target": truth.target,
            "other": other.name,
            **_answers(policy, observation, truth, other, references, settings),
        }
    finally:
        bench.close()


def _answers(
    policy: Policy,
    observation: Observation,
    truth: SceneTruth,
    other: SceneObject,
    references: dict[str, Any],
    settings: FrameSettings,
) -> dict[str, Any]:
    """Return headings and divergences of the policy's own text, of each dose, and of the base sampled again."""

    def path(text: str | None, noise: int) -> tuple[str, Any]:
        policy.reset(noise)
        inference = policy.infer(observation, text)
        return inference.reasoning.text, tool_path(inference.chunk, truth.task)

    texts = dose_texts(truth, other)
    own_text, own = path(None, settings.seed)
    base = path(texts[BASE], settings.seed)[1]
    again = [path(texts[BASE], settings.seed + 1 + k)[1] for k in range(settings.resamples)]
    doses = {}
    for name in DOSE_NAMES:
        found = path(texts[name], settings.seed)[1]
        doses[name] = {
            "text": texts[name],
            "heading": heading(found, references),
            "divergence_mm": round(_MM * path_distance_m(base, found), 3),
        }
    return {
        "own": {"text": own_text, "heading": heading(own, references)},
        BASE: {"text": texts[BASE], "heading": heading(base, references)},
        "floor_mm": [round(_MM * path_distance_m(base, sample), 3) for sample in again],
        "between_objects_mm": round(_MM * path_distance_m(references[truth.target][0], references[other.name][0]), 3),
        "doses": doses,
    }


def _other(truth: SceneTruth, seed: int) -> SceneObject:
    """Return one object of the target's kind, drawn by the seed: one a frame, so that frames are independent."""
    role = next(item.role for item in truth.objects if item.name == truth.target)
    others = [item for item in truth.objects if item.role == role and item.name != truth.target]
    return others[int(np.random.default_rng([seed, 4441]).integers(len(others)))]
