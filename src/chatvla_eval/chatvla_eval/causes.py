# SPDX-License-Identifier: Apache-2.0
"""Say why a trial failed, from what the text claimed and what the arm did.

The first cause in the chain from seeing to doing counts:
refused or error (the run itself broke), then, when the text does not choose the right object: perception (something was
read wrong, or the text does not say it), arithmetic (all read right, answer wrong), choice (answer right, object
wrong); when the text chooses the right object: following (another object was taken, or nothing was and a gripper went
for another), timeout (nothing was taken before the time ran out), execution (the right one was followed and not
placed). A policy that writes no text tells nothing of what it saw and chose: no_text, or timeout.

Every failure is one broken link of the chain perception, arithmetic, choice, following, execution; "no_text" stands for
a trial without a text, which tells no link, and "run" for one that broke before the policy could fail. The links of a
run add up to its failures.
"""

from __future__ import annotations

from chatvla_eval.tasks.base import ScoredReasoning

__all__ = ["LINKS", "broken_link", "failure_cause"]

LINKS = ("perception", "arithmetic", "choice", "following", "execution", "no_text", "run")
"""Links of the chain in its order."""


def failure_cause(
    scored: ScoredReasoning,
    *,
    success: bool,
    written: bool,
    picked: str,
    approached: str,
    target: str,
    timed_out: bool,
    error: str = "",
    refused: str = "",
) -> str:
    """Return "" for a success, else the cause: one word, "refused:<code>" or "error:<sentence>".

    `written` says whether there is a text. `picked`, `approached` and `target` are names of objects; `picked` is empty
    when none was taken, and then `approached` is the one that a gripper came nearest to, empty for none.
    """
    if success:
        return ""
    if error:
        return f"error:{error}"
    if refused and not picked:
        return f"refused:{refused}"
    if not picked and timed_out and (scored.chosen or not written):
        return "timeout"
    return _link(scored, written=written, went_for=picked or approached, target=target)


def broken_link(cause: str, scored: ScoredReasoning, *, written: bool, approached: str, target: str) -> str:
    """Return which of LINKS broke, from the cause of failure; "" for a success.

    A refused chunk or a time-out says how a trial ended, not what was at fault: with a wrong text the text was, with a
    right one it was following when a gripper went for another object (`approached`), else execution.
    """
    word = cause.partition(":")[0]
    if word not in ("refused", "timeout"):
        return "run" if word == "error" else word
    return _link(scored, written=written, went_for=approached, target=target)


def _link(scored: ScoredReasoning, *, written: bool, went_for: str, target: str) -> str:
    """Return the first thing wrong in the text, else in what was taken or, where nothing was, gone for."""
    if not written:
        return "no_text"
    if not scored.chosen:
        return "perception" if not scored.perceived else "arithmetic" if not scored.computed else "choice"
    return "following" if went_for and went_for != target else "execution"
