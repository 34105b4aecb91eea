# SPDX-License-Identifier: Apache-2.0
"""Say what VLM2VLA asks of whoever writes its answers: a model, or anything else that reads pictures and writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Images", "Writer"]

Images = Sequence[NDArray[np.uint8]]
"""RGB, (H, W, 3) each."""


class Writer(Protocol):
    """Writes an answer to a question about images."""

    def write(
        self,
        question: str,
        images: Images,
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
        begin: str = "",
        mapped: bool = False,
    ) -> str:
        """Return the answer, which starts with `begin`; temperature 0 takes the likeliest tokens.

        `mapped`: digits of this answer are written in the action-token variant's tokens.
        """
        ...

    def plain(self, text: str) -> str:
        """Return text in which no control token is left."""
        ...
