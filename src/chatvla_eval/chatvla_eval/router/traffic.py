# SPDX-License-Identifier: Apache-2.0
"""Count which experts a checkpoint's tokens go to, for questions and for robot inputs. L layers, E experts.

Figures as in the authors' reply (OpenReview, Expert Traffic per Layer): tokens per expert and layer, entropy of the
load, busiest over idlest expert, standard deviation over the experts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import InputKind, Observation, Policy, RouterStats
from chatvla_eval.policies import PolicyUnavailableError, load_checkpoint_policy
from chatvla_eval.trial import trial_seed
from chatvla_eval.understanding.questions import Question
from chatvla_sim.benches import make_bench
from chatvla_sim.closed_loop import ClosedLoop

__all__ = ["KindTraffic", "counted", "drift", "first_frames", "traffic_of"]


@dataclass(frozen=True, kw_only=True)
class KindTraffic:
    """Slots (tokens times top-k) per layer and expert for one kind of input."""

    kind: InputKind
    inputs: int
    """Questions or observations."""
    top_k: int
    counts_LE: NDArray[np.int64]

    @property
    def load_LE(self) -> NDArray[np.float64]:  # noqa: N802 (axis suffix)
        """Share of the slots, rows summing to 1."""
        return self.counts_LE / np.maximum(self.counts_LE.sum(-1, keepdims=True), 1)

    def to_dict(self) -> dict[str, Any]:
        """Return counts and figures per layer with their means; an expert without tokens leaves the ratio None."""
        load, counts = self.load_LE, self.counts_LE
        entropy = -(load * np.log2(np.where(load > 0, load, 1.0))).sum(-1)
        idlest = counts.min(-1)
        ratios = [
            None if low == 0 else round(float(high / low), 4) for high, low in zip(counts.max(-1), idlest, strict=True)
        ]
        known = [ratio for ratio in ratios if ratio is not None]
        return {
            "inputs": self.inputs,
            "top_k": self.top_k,
            "tokens": int(counts[0].sum()) // self.top_k,
            "counts": counts.tolist(),
            "entropy_bits": [round(float(value), 4) for value in entropy],
            "top_ratio": ratios,
            "std": [round(float(value), 2) for value in counts.std(-1)],
            "mean": {
                "entropy_bits": round(float(entropy.mean()), 4),
                "most_bits": round(float(np.log2(counts.shape[1])), 4),
                "top_ratio": round(float(np.mean(known)), 4) if len(known) == len(ratios) else None,
                "std": round(float(counts.std(-1).mean()), 2),
            },
        }


def counted(kind: InputKind, stats: Iterable[RouterStats | None]) -> KindTraffic | None:
    """Return the sum of `stats`; None when the model has no router."""
    found = [item for item in stats if item is not None]
    if not found:
        return None
    # A load is counts over their sum, so the counts come back exactly by rounding.
    counts = sum(np.rint(item.load.astype(np.float64) * item.tokens * item.top_k).astype(np.int64) for item in found)
    return KindTraffic(kind=kind, inputs=len(found), top_k=found[0].top_k, counts_LE=np.asarray(counts))


def drift(first: KindTraffic, second: KindTraffic) -> list[float]:
    """Return the total variation between two loads per layer: 0 the same experts, 1 none in common."""
    return [round(float(value), 4) for value in 0.5 * np.abs(first.load_LE - second.load_LE).sum(-1)]


def first_frames(task: str, *, split: str, seed: int, count: int) -> list[Observation]:
    """Return what a policy sees at the beginning of `count` trials."""
    found = []
    for index in range(count):
        bench = make_bench(task)
        try:
            truth = bench.reset(split=split, seed=trial_seed(seed, index))
            found.append(ClosedLoop(bench).observe(truth.instruction))
        finally:
            bench.close()
    return found


def traffic_of(
    checkpoint: str, observations: Sequence[Observation], questions: Sequence[Question], *, seed: int = 0
) -> Mapping[InputKind, KindTraffic | None]:
    """Return the traffic of both kinds of input. Raises PolicyUnavailableError where the policy cannot be asked."""
    policy: Policy = load_checkpoint_policy(checkpoint)
    if not hasattr(policy, "ask") or not hasattr(policy, "question_router"):
        raise PolicyUnavailableError(f"policy {checkpoint!r} tells nothing of a router")
    robot: list[RouterStats | None] = []
    for observation in observations:
        policy.reset(seed)
        robot.append(policy.infer(observation).router)
    asked: list[RouterStats | None] = []
    for question in questions:
        policy.ask(question.text, question.pictures() or None)  # type: ignore[attr-defined]
        asked.append(policy.question_router)  # type: ignore[attr-defined]
    return {
        InputKind.UNDERSTANDING: counted(InputKind.UNDERSTANDING, asked),
        InputKind.ROBOT: counted(InputKind.ROBOT, robot),
    }
