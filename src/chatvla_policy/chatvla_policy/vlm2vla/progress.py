# SPDX-License-Identifier: Apache-2.0
"""Keep where an instruction stands: its subtasks, the one being done, what was tried and what is on its way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_policy.vlm2vla.mover import Motion
from chatvla_policy.vlm2vla.writer import Images

__all__ = ["Progress"]


@dataclass(kw_only=True)
class Progress:
    """Where an instruction stands."""

    instruction: str
    forced: str | None
    thought: str = ""
    subtasks: tuple[str, ...] = ()
    number: int = 0
    """Of the present subtask."""
    tries: int = 0
    """Times that the present subtask was tried again."""
    text: str = ""
    pending: tuple[int, NDArray[np.float64]] | None = None
    """Arm and actions that wait for the next observation."""
    motion: Motion | None = None
    """What is being played, or has been and was not judged yet."""
    before: Images = ()
    """All views when the subtask began."""
    done: bool = False

    def go_on(self) -> None:
        """Take up the next subtask; after the last one all is done."""
        self.tries = 0
        if self.number + 1 >= len(self.subtasks):
            self.done = True
        else:
            self.number += 1

    def try_again(self, most: int) -> bool:
        """Stay at the present subtask, unless it was tried again `most` times already; return whether it stays."""
        if self.tries >= most:
            return False
        self.tries += 1
        return True
