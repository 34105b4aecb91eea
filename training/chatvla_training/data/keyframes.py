# SPDX-License-Identifier: Apache-2.0
"""Find the keyframes of demonstrations: where a gripper begins to close or to open, and where an episode ends.

What an arm is on its way to is in the demonstration already: the joints at its next keyframe (James and Davison 2022,
"Q-attention"). Shapes: N rows of the data set; E episodes; G grippers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["keyframe_rows"]


def keyframe_rows(grippers_NG: NDArray[np.floating], ends_E: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row the row of the next keyframe of its episode, shape (N,); at a keyframe, of the one after it.

    `grippers` are commanded openings; one counts as closed below the middle of all its values. `ends` holds the row
    behind the last of each episode, ascending.
    """
    closed_NG = grippers_NG < (grippers_NG.min(0) + grippers_NG.max(0)) / 2
    change_N = np.zeros(len(closed_NG), np.bool_)
    change_N[1:] = (closed_NG[1:] != closed_NG[:-1]).any(1)
    change_N[ends_E[:-1]] = False
    last_N = np.repeat(ends_E - 1, np.diff(ends_E, prepend=0))
    changes = np.flatnonzero(change_N)
    following_N = np.searchsorted(changes, np.arange(len(change_N)), side="right")
    row_N = np.append(changes, len(change_N))[following_N]
    return np.minimum(row_N, last_N)
