# SPDX-License-Identifier: Apache-2.0
"""Add up why trials failed, and what the same trials do when the right reasoning is forced.

A failed trial is attributed to the first broken link of the chain perception, arithmetic, choice, following, execution
(`causes.broken_link`); "run" are trials that broke down. With the same seeds run again under forced-correct reasoning
(ChatVLA-2, OpenReview: asked for by reviewers), a failure is cured when the forced run succeeds; else the link that
broke there lies behind the first one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from chatvla_eval.causes import LINKS
from chatvla_eval.paired import mcnemar
from chatvla_eval.statistics import proportion
from chatvla_eval.trial_result import TrialResult

__all__ = ["agreement", "forced_correct", "links"]

_DIGITS = 6


def links(trials: Sequence[TrialResult]) -> dict[str, int]:
    """Return the failures by broken link, in the chain's order; they add up to all failures."""
    counts = Counter(trial.link for trial in trials if not trial.success)
    return {link: counts[link] for link in LINKS if counts[link]}


def agreement(trials: Sequence[TrialResult]) -> dict[str, float]:
    """Return how often the object taken is the one the text chose, over trials in which both are known."""
    both = [trial for trial in trials if trial.chosen and trial.picked]
    return _rounded(sum(trial.chosen == trial.picked for trial in both), len(both))


def forced_correct(own: Sequence[TrialResult], forced: Sequence[TrialResult]) -> dict[str, Any]:
    """Return what forcing the right reasoning changes, over the trials that both lists hold.

    `behind` says for each failed trial which link broke although the text was right; "" when the trial was cured.
    """
    again = {trial.index: trial for trial in forced}
    pairs = [(trial, again[trial.index]) for trial in own if trial.index in again]
    failed = [(trial, other) for trial, other in pairs if not trial.success]
    cured: dict[str, dict[str, int]] = {}
    for trial, other in failed:
        count = cured.setdefault(trial.link, {"k": 0, "n": 0})
        count["k"] += other.success
        count["n"] += 1
    return {
        "success": _rounded(sum(other.success for _, other in pairs), len(pairs)),
        "links": links([other for _, other in pairs]),
        "against_own_text": asdict(
            mcnemar([trial.success for trial, _ in pairs], [other.success for _, other in pairs])
        ),
        "cured": {link: cured[link] for link in LINKS if link in cured},
        "behind": {str(trial.index): other.link for trial, other in failed},
    }


def _rounded(k: int, n: int) -> dict[str, float]:
    return {key: round(value, _DIGITS) for key, value in asdict(proportion(k, n)).items()}
