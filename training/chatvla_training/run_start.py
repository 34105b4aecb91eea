# SPDX-License-Identifier: Apache-2.0
"""Know what a run started from by its content: a checkpoint trained anew in the same place is another start."""

from __future__ import annotations

import hashlib

from chatvla_policy.checkpoint.files import MANIFEST
from chatvla_training.build_model import init_folder
from chatvla_training.recipe import Recipe
from chatvla_training.trainer.run_folder import RunFolder, RunFolderError

__all__ = ["start_gone", "start_hashes"]

_STARTS = ("init", "init_vision")


def start_hashes(recipe: Recipe, run: RunFolder) -> dict[str, str]:
    """Return the fingerprints of the checkpoints of ours that the run starts from, as config.json says them.

    Nothing is loaded. Raises RunFolderError where the run in the folder began with others. A finished run needs its
    start no more, so that may be gone; of a run that an earlier version began no fingerprint is known, and none asked.
    """
    before = run.config()
    found: dict[str, str] = {}
    for name in _STARTS:
        place, key = getattr(recipe, name), f"{name}_sha256"
        now = _fingerprint(place)
        if before is None:
            found |= {key: now} if now else {}
        elif key in before:
            found[key] = before[key]
            # Another place is another recipe, which the claim refuses.
            same = now == before[key] or before["recipe"][name] != place
            if not same and (now or not run.finished):
                raise RunFolderError(
                    f"{run.path} holds a run whose {name} {place} was {before[key][:12]}, now it is "
                    f"{now[:12] or 'gone'}. Put that checkpoint back to go on, delete {run.path} to train it anew, or "
                    "give another --out"
                )
    return found


def start_gone(recipe: Recipe, hashes: dict[str, str]) -> bool:
    """Return whether a checkpoint among `hashes` lies no more where `recipe` says."""
    return any(f"{name}_sha256" in hashes and not _fingerprint(getattr(recipe, name)) for name in _STARTS)


def _fingerprint(place: str) -> str:
    """Return the hash of a checkpoint of ours; empty for anything else."""
    manifest = init_folder(place) / MANIFEST
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if place and manifest.is_file() else ""
