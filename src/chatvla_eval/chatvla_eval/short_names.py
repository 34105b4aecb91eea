# SPDX-License-Identifier: Apache-2.0
"""Call files and folders by as little of their paths as tells them apart."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["short_names"]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path: its last part, with as many folders above as tell it from others ("a/monday")."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    lengths = [1] * len(paths)
    while True:
        names = ["/".join(part[-length:]) for part, length in zip(parts, lengths, strict=True)]
        counts = Counter(names)
        longer = [
            min(length + (counts[name] > 1), len(part))
            for part, length, name in zip(parts, lengths, names, strict=True)
        ]
        if longer == lengths:
            return names
        lengths = longer
