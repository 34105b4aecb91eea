# SPDX-License-Identifier: Apache-2.0
"""Read the answer that a reasoning text states, for display and messages; scoring parses texts by itself (eval)."""

from __future__ import annotations

import re

__all__ = ["stated_answer"]

_EQUATION = re.compile(r"=\s*(-?\d{1,6})\b")
_SENTENCE = re.compile(r"\b(?:answer|result)\s+(?:is\s+)?(-?\d{1,6})\b", re.IGNORECASE)


def stated_answer(text: str) -> str:
    """Return the number after the last "=", or after "answer" or "result"; empty when the text states none."""
    found = _EQUATION.findall(text) or _SENTENCE.findall(text)
    return found[-1] if found else ""
