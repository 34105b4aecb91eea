# SPDX-License-Identifier: Apache-2.0
"""Keep where the time from image stamp to published chunk went, over the last inferences. Units ms."""

from __future__ import annotations

from collections import deque

import numpy as np

from chatvla_policy.runtime.inference import Outcome

__all__ = ["STAGES", "StageTimes"]

STAGES = ("wait", "preprocess", "reasoning", "denoise", "publish", "total", "overhead")


class StageTimes:
    """The last inferences' stages, by source of the reasoning."""

    def __init__(self, count: int = 200) -> None:
        self._rows: deque[tuple[str, tuple[float, ...]]] = deque(maxlen=count)

    def add(self, outcome: Outcome, *, source: str, published_s: float) -> tuple[float, ...]:
        """Take one published inference; return its stages [ms] in the order of STAGES.

        `wait`: from the image's stamp to the start of inference; `publish`: from its end to the published chunk;
        `overhead`: both, all that is not the policy's own time.
        """
        job, stages = outcome.job, outcome.stages
        total_s = published_s - job.observation.stamp_s
        wait_s = job.begun_s - job.observation.stamp_s
        publish_s = total_s - wait_s - outcome.seconds
        parts = (wait_s, stages.preprocess, stages.reasoning, stages.denoise, publish_s, total_s, wait_s + publish_s)
        row = tuple(1e3 * value for value in parts)
        self._rows.append((source, row))
        return row

    def copy(self) -> StageTimes:
        """Return the same inferences, for another thread to look at."""
        copied = StageTimes(self._rows.maxlen or 0)
        copied._rows.extend(self._rows)
        return copied

    def sources(self) -> tuple[str, ...]:
        """Return the sources of reasoning among the kept inferences, sorted."""
        return tuple(sorted({source for source, _ in self._rows}))

    def percentiles(self, source: str | None = None) -> dict[str, tuple[float, float]]:
        """Return (p50, p99) [ms] per stage over the kept inferences of `source`, or of all; empty when none."""
        rows = np.array([row for name, row in self._rows if source in (None, name)])
        if not len(rows):
            return {}
        low, high = np.percentile(rows, [50, 99], axis=0)
        return {name: (float(low[k]), float(high[k])) for k, name in enumerate(STAGES)}
