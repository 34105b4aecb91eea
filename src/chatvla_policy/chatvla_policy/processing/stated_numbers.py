# SPDX-License-Identifier: Apache-2.0
"""Read the numbers that a reasoning states as values, for an action expert that takes them so.

Rectangles are written in thousandths of the picture. A number as a word of its own has to be learned apart from its
neighbours; as a value it stands between them (xVal, Golkar et al. 2023, "xVal: a continuous number encoding").
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_NUMBERS", "stated_numbers"]

MOST_NUMBERS = 32
"""Numbers of a text that are kept."""
_NUMBER = re.compile(r"(?<!\d)\d{1,4}(?!\d)")


def stated_numbers(text: str) -> NDArray[np.float32]:
    """Return the last numbers of `text` in their order, as shares of 1000, shape (MOST_NUMBERS,).

    The last one stands last; NaN stands for those that the text lacks. More than 1000 counts as 1000; what has more
    than four digits is no number here.
    """
    found = [min(1.0, int(digits) / 1000) for digits in _NUMBER.findall(text)[-MOST_NUMBERS:]]
    return np.array([np.nan] * (MOST_NUMBERS - len(found)) + found, np.float32)
