# SPDX-License-Identifier: Apache-2.0
"""Say why a trial failed, from what the text claimed and what the arm did.

The first cause in the chain from seeing to doing counts:
refused or error (the run itself broke), then, when the text does not choose the right object: perception (something was
read wrong), arithmetic (all read right, answer wrong), choice (answer right, object wrong); when the text chooses the
right object: following (another object was taken), execution (the right one was taken and not placed), timeout (nothing
was taken before the time ran out).
"""

from __future__ import annotations

from chatvla_eval.tasks.base import ScoredReasoning

__all__ = ["failure_cause"]


def failure_cause(
    scored: ScoredReasoning,
    *,
    success: bool,
    picked: str,
    target: str,
    timed_out: bool,
    error: str = "",
    refused: str = "",
) -> str:
    """Return "" for a success, else the cause: one word, "refused:<code>" or "error:<sentence>".

    `picked` and `target` are names of objects; `picked` is empty when none was taken.
    """
    if success:
        return ""
    if error:
        return f"error:{error}"
    if refused and not picked:
        return f"refused:{refused}"
    if not scored.chosen:
        return "perception" if not scored.perceived else "arithmetic" if not scored.computed else "choice"
    if picked and picked != target:
        return "following"
    if not picked and timed_out:
        return "timeout"
    return "execution"
