# SPDX-License-Identifier: Apache-2.0
"""Say by which name a policy goes in results, in films and in the reasoning that it signs. No torch."""

from __future__ import annotations

from pathlib import Path

__all__ = ["TRAINED", "policy_name"]

TRAINED = "policy"
"""What every training calls the folder of its checkpoint: runs/NAME/policy."""


def policy_name(folder_or_name: str | Path) -> str:
    """Return the name of a checkpoint's folder; for a folder called "policy", that of the folder above."""
    folder = Path(folder_or_name).resolve()
    return folder.parent.name or folder.name if folder.name == TRAINED else folder.name
