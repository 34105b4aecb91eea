# SPDX-License-Identifier: Apache-2.0
"""Keep the results of one evaluation and write them to results.json, whole after every trial.

The file is written beside and renamed, so that a reader or a kill never meets half a file.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chatvla_eval.attribution import agreement, forced_correct, links
from chatvla_eval.demonstrations import shows_demonstrations
from chatvla_eval.statistics import mean_interval, proportion
from chatvla_eval.tasks import task_by_name
from chatvla_eval.trial import trial_seed
from chatvla_eval.trial_result import TrialResult

__all__ = ["RESULTS_NAME", "RunInfo", "results_dict", "source_commit", "summary", "write_results"]

RESULTS_NAME = "results.json"
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What determines an evaluation, apart from its trials."""

    task: str
    split: str
    seed: int
    trials: int
    """Number of trials asked for."""
    policy: str
    system: str = ""
    """Which system the policy is (chatvla2, chatvla1, vlm2vla, ...), "expert", or empty where it is not known."""
    privileged: bool
    simulation: bool
    swap: bool = False
    forced_reasoning: str = ""
    force_correct: bool = False
    fonts: tuple[str, ...] = ()
    delay_s: tuple[float, float] | None = None
    """Simulated time of an inference that keeps its text, and of one that writes; None: none, or real time."""
    replan_s: float | None = None
    """Simulated time between questions to the policy; None where it asks itself."""
    timeout_s: float | None = None
    """Longest trial; None where it is not known."""
    transport: str = "in_process"
    """"in_process" (simulated clock), "ros" (real time) or "bag" (recorded)."""
    commit: str = ""

    def on_demonstrations(self, trials: Sequence[TrialResult] = ()) -> bool:
        """Return whether a learned policy meets scenes of the demonstrations, by the seeds of the run and `trials`."""
        seeds = (trial_seed(self.seed, 0), *(trial.seed for trial in trials))
        return self.simulation and not self.privileged and shows_demonstrations(self.split, seeds)


def source_commit() -> str:
    """Return the commit this package runs from, with "-dirty" when files differ; "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def results_dict(info: RunInfo, trials: Sequence[TrialResult], forced: Sequence[TrialResult] = ()) -> dict[str, Any]:
    """Return the content of results.json for the trials done so far; `forced` ran again with the right reasoning."""
    ordered = sorted(trials, key=lambda trial: trial.index)
    found = {
        "task": info.task,
        "split": info.split,
        "policy": info.policy,
        "system": info.system,
        "privileged": info.privileged,
        "simulation": info.simulation,
        "seed": info.seed,
        "demonstration_scenes": info.on_demonstrations(ordered),
        "commit": info.commit,
        "transport": info.transport,
        "swap": info.swap,
        "forced_reasoning": info.forced_reasoning,
        "force_correct": info.force_correct,
        "fonts": list(info.fonts),
        "trials_asked": info.trials,
        "complete": len(ordered) == info.trials,
        "trials": [trial.to_dict() for trial in ordered],
        "summary": summary(info.task, ordered),
    }
    times = {"delay_s": info.delay_s and list(info.delay_s), "replan_s": info.replan_s, "timeout_s": info.timeout_s}
    found |= {name: value for name, value in times.items() if value is not None}
    return found | ({"forced_correct": forced_correct(ordered, forced)} if forced else {})


def summary(task: str, trials: Sequence[TrialResult]) -> dict[str, Any]:
    """Return rates and means with 95% intervals, causes of failure, and the same for each subset of the trials."""
    subsets = sorted({mark for trial in trials for mark in trial.subsets})
    whole = _rates(task, trials)
    whole["causes"] = dict(sorted(Counter(trial.cause.partition(":")[0] for trial in trials if trial.cause).items()))
    whole["links"] = links(trials)
    whole["agreement"] = agreement(trials)
    whole["counts"] = _added(trial.counts for trial in trials)
    return whole | {mark: _rates(task, [trial for trial in trials if mark in trial.subsets]) for mark in subsets}


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums by name, in the order in which the names come; a name that counts nothing stays."""
    found: Counter[str] = Counter()
    for one in counts:
        found.update(one)
    return dict(found)


def _rates(task: str, trials: Sequence[TrialResult]) -> dict[str, Any]:
    success = asdict(proportion(sum(trial.success for trial in trials), len(trials)))
    rates: dict[str, Any] = {"success": {key: round(value, _DIGITS) for key, value in success.items()}}
    for measure, most in task_by_name(task).measures.items():
        interval = mean_interval([trial.measures[measure] for trial in trials])
        rates[measure] = {
            "mean": _finite(interval.mean),
            "of": most,
            "low": _finite(interval.low),
            "high": _finite(interval.high),
            "n": interval.n,
        }
    return rates


def _finite(value: float) -> float | None:
    """Return the value rounded, None for NaN: JSON has no NaN."""
    return None if value != value else round(value, _DIGITS)


def write_results(
    folder: Path,
    info: RunInfo,
    trials: Sequence[TrialResult],
    forced: Sequence[TrialResult] = (),
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write results.json into `folder` (made when missing) and return its path; `more` are further entries."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULTS_NAME
    aside = folder / f".{RESULTS_NAME}.{os.getpid()}"
    with aside.open("w", encoding="utf-8") as file:
        json.dump(
            results_dict(info, trials, forced) | dict(more or {}), file, indent=1, ensure_ascii=False, allow_nan=False
        )
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    return path
