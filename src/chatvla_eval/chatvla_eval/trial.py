# SPDX-License-Identifier: Apache-2.0
"""Run one trial and score it, whatever carries it: the same loop serves the simulated clock and ROS.

Times in s since the start of the trial, by the session's own clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from chatvla_control.scene import SEEDS_PER_RUN, SceneTruth
from chatvla_eval.causes import broken_link, failure_cause
from chatvla_eval.oracle import right_reasoning
from chatvla_eval.session import TrialSession, TrialSettings, TrialSetup, Watch
from chatvla_eval.tasks import Task
from chatvla_eval.tools import Approach
from chatvla_eval.trace import TrialTrace
from chatvla_eval.trial_result import TrialResult

__all__ = ["Touched", "run_trial", "score_trial", "trial_seed"]


@dataclass
class Touched:
    """Which objects were taken first and last, and which the grippers came nearest to, over the course of a trial."""

    first: str = ""
    name: str = ""
    """The one taken last."""
    placed_since_s: float | None = None
    approach: Approach = field(default_factory=Approach)
    untouched: SceneTruth | None = None
    """The scene as it was first seen: what the first reasoning text is about."""

    def see(self, watch: Watch) -> None:
        """Take note of one watch."""
        if self.untouched is None:
            self.untouched = next(iter(watch.seen), watch.truth)
        for truth in (*watch.seen, watch.truth):
            held = next((item.name for item in truth.objects if item.held), "")
            self.name = truth.placed or held or self.name
            self.first = self.first or self.name
        if not watch.truth.placed:
            self.placed_since_s = None
        elif self.placed_since_s is None:
            self.placed_since_s = watch.elapsed_s
        self.approach.see(watch)


def trial_seed(seed: int, index: int) -> int:
    """Return the seed of trial `index` of the run with `seed`; runs of fewer than 100000 trials share none."""
    return seed * SEEDS_PER_RUN + index


def run_trial(
    session: TrialSession,
    task: Task,
    setup: TrialSetup,
    *,
    settings: TrialSettings | None = None,
    on_frame: Callable[[float, NDArray[np.uint8], str], None] | None = None,
    trace: TrialTrace | None = None,
) -> TrialResult:
    """Return the scored result of one trial. `on_frame(elapsed_s, image, text)` is called about ten times a second.

    `trace` keeps pictures, texts, chunks and executed motion for the report. The session's own errors pass through.
    """
    limits = settings or TrialSettings()
    truth = session.reset(setup)
    if setup.force_correct:
        setup = replace(setup, forced_reasoning=right_reasoning(truth))
    touched = Touched()
    session.start(setup, truth.instruction, limits.timeout_s)
    finished_s: float | None = None
    while True:
        watch = session.watch()
        touched.see(watch)
        _show(session, watch, on_frame, trace)
        if watch.finished and finished_s is None:
            finished_s = watch.elapsed_s
        if _is_over(watch, touched, finished_s, limits):
            break
    if trace is not None:
        trace.add_frame(watch.elapsed_s, session.frame())
    session.stop()
    return score_trial(task, setup, watch, touched, timed_out=watch.timed_out or finished_s is None)


def _show(
    session: TrialSession,
    watch: Watch,
    on_frame: Callable[[float, NDArray[np.uint8], str], None] | None,
    trace: TrialTrace | None,
) -> None:
    """Give the film and the trace what they keep; a picture is drawn only when one of them wants it."""
    if trace is not None:
        trace.add(watch)
    wanted = trace is not None and trace.wants_frame(watch.elapsed_s)
    if (on_frame is None and not wanted) or (image := session.frame()) is None:
        return
    if on_frame is not None:
        on_frame(watch.elapsed_s, image, watch.texts[-1] if watch.texts else "")
    if trace is not None and wanted:
        trace.add_frame(watch.elapsed_s, image)


def _is_over(watch: Watch, touched: Touched, finished_s: float | None, limits: TrialSettings) -> bool:
    settled = finished_s is not None and watch.elapsed_s - finished_s >= limits.settle_s
    rested = touched.placed_since_s is not None and watch.elapsed_s - touched.placed_since_s >= limits.rest_s
    return bool(watch.error) or settled or rested or watch.elapsed_s >= limits.timeout_s


def score_trial(task: Task, setup: TrialSetup, watch: Watch, touched: Touched, *, timed_out: bool) -> TrialResult:
    """Return the result of a trial that ended with `watch`."""
    truth = watch.truth
    text = watch.texts[0] if watch.texts else ""
    # Objects move in the course of a trial, and a text that points at them is right or wrong about its own time, as it
    # is about the step that was next then.
    untouched = touched.untouched or truth
    scored = task.score(text, untouched)
    picked = touched.first if task.in_steps else touched.name
    success = truth.success and not watch.error
    labels = {item.name: item.label for item in truth.objects}
    # Only a trial in which nothing was taken needs it, and it takes time.
    approached = "" if success or picked else touched.approach.name
    written = bool(text)
    cause = failure_cause(
        scored,
        success=success,
        written=written,
        picked=picked,
        approached=approached,
        target=untouched.target,
        timed_out=timed_out,
        error=watch.error,
        refused=watch.refused,
    )
    return TrialResult(
        index=setup.index,
        seed=setup.seed,
        instruction=truth.instruction,
        scene=task.describe(truth),
        text=text,
        answer=scored.answer,
        texts=len(watch.texts),
        picked=labels.get(picked, picked),
        measures=dict(scored.measures) | dict(task.outcome(truth)),
        parts=dict(scored.parts),
        success=success,
        cause=cause,
        seconds=round(watch.elapsed_s, 3),
        subsets=tuple(truth.subsets),
        link=broken_link(cause, scored, written=written, approached=approached, target=untouched.target),
        chosen=labels.get(scored.choice, ""),
        approached=labels.get(approached, ""),
        counts=dict(watch.counts),
    )
