# SPDX-License-Identifier: Apache-2.0
"""Tell whether trials show scenes of the demonstrations, so that their scores say nothing of new scenes.

`chatvla demos` records trials of split in_domain; those of its seed 0, the default, have the trial seeds of a run with
seed 0. Where the expert does not solve one, it records the trial of the same number of the run with seed 1, or of the
next ones up to 4. The shipped policy was trained on them.
"""

from __future__ import annotations

from collections.abc import Iterable

from chatvla_control.scene import SEEDS_PER_RUN

__all__ = ["DEMONSTRATION_NOTE", "DEMONSTRATION_SEEDS", "DEMONSTRATION_WARNING", "shows_demonstrations"]

DEMONSTRATION_SEEDS = range(5)
"""Seeds of runs whose scenes demonstrations have (0) or may have (1 to 4)."""
DEMONSTRATION_NOTE = (
    "scenes that demonstrations were or may have been recorded on: a policy trained on them has seen them"
)
"""What tables and pages say of such trials."""
DEMONSTRATION_WARNING = (
    "seed 0 of in_domain draws the very scenes of the demonstrations that the shipped policy was trained on, and on "
    "scenes of seeds 1 to 4 some may have been recorded, so the scores say nothing of new scenes; give another seed, "
    "such as --seed 100 (launch: seed:=100)"
)
_SPLIT = "in_domain"


def shows_demonstrations(split: str, seeds: Iterable[int]) -> bool:
    """Return whether a run of `split` has a scene that demonstrations may have; `seeds` are of its trials.

    The split of several bags is all of theirs, joined by " + ".
    """
    return _SPLIT in split.split(" + ") and any(seed // SEEDS_PER_RUN in DEMONSTRATION_SEEDS for seed in seeds)
