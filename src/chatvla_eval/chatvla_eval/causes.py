# SPDX-License-Identifier: Apache-2.0
"""Say why a trial failed, from what the text claimed and what the arm did.

The first cause in the chain from seeing to doing counts:
refused or error (the run itself broke), then, when the text does not choose the right object: perception (something was
read wrong), arithmetic (all read right, answer wrong), choice (answer right, object wrong); when the text chooses the
right object: following (another object was taken), execution (the right one was taken and not placed), timeout (nothing
was taken before the time ran out).

Every failure is one broken link of the chain perception, arithmetic, choice, following, execution; "run" stands for a
trial that broke before the policy could fail. The links of a run add up to its failures.
"""

from __future__ import annotations

from chatvla_eval.tasks.base import ScoredReasoning

__all__ = ["LINKS", "broken_link", "failure_cause"]

LINKS = ("perception", "arithmetic", "choice", "following", "execution", "run")
"""Links of the chain in its order."""


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


def broken_link(cause: str, scored: ScoredReasoning, *, approached: str, target: str) -> str:
    """Return which of LINKS broke, from the cause of failure; "" for a success.

    A refused chunk or a time-out says how a trial ended, not what was at fault: with a wrong text the text was, with a
    right one it was following when a gripper went for another object (`approached`), else execution.
    """
    word = cause.partition(":")[0]
    if word not in ("refused", "timeout"):
        return "run" if word == "error" else word
    if not scored.chosen:
        return "perception" if not scored.perceived else "arithmetic" if not scored.computed else "choice"
    return "following" if approached and approached != target else "execution"
