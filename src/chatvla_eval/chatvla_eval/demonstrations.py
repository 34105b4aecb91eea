# SPDX-License-Identifier: Apache-2.0
"""Tell whether trials show the very scenes of the demonstrations, so that their scores say nothing of new scenes.

`chatvla demos` records trials of split in_domain; those of its seed 0, the default, have the trial seeds of a run with
seed 0. The shipped policy was trained on them.
"""

from __future__ import annotations

from collections.abc import Iterable

from chatvla_eval.trial import SEEDS_PER_RUN

__all__ = ["DEMONSTRATION_NOTE", "DEMONSTRATION_WARNING", "shows_demonstrations"]

DEMONSTRATION_NOTE = "scenes of the demonstrations: a policy trained on them has seen them"
"""What tables and pages say of such trials."""
DEMONSTRATION_WARNING = (
    "seed 0 of in_domain draws the very scenes of the demonstrations that the shipped policy was trained on, so its "
    "scores say nothing of new scenes; give another seed, such as --seed 1 (launch: seed:=1)"
)
_SEED, _SPLIT = 0, "in_domain"


def shows_demonstrations(split: str, seeds: Iterable[int]) -> bool:
    """Return whether a run of `split` has a scene of the demonstrations; `seeds` are of its trials.

    The split of several bags is all of theirs, joined by " + ".
    """
    return _SPLIT in split.split(" + ") and any(seed // SEEDS_PER_RUN == _SEED for seed in seeds)
