# SPDX-License-Identifier: Apache-2.0
"""See whether a reasoning text contradicts itself: it chooses a number that it has not read where it says it lies.

Only the text is looked at, so a true text and a consistent mistake pass alike; scoring parses texts by itself (eval).
"""

from __future__ import annotations

import re

__all__ = ["contradicts_itself"]

_PLACE_FIRST = re.compile(r"\b([a-z]+(?: [a-z]+)?): (\d{1,6})\b")
_NUMBER_FIRST = re.compile(r"\b(\d{1,6}) (?:\(|on the )([a-z]+(?: [a-z]+)?)\b")
_RESULT = re.compile(r"\d ?[-+x*/\u00d7\u00f7] ?\d{1,6} ?(?:=|equals|is) ?(\d{1,6})\b")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def contradicts_itself(text: str) -> bool:
    """Return whether the last sentence chooses what the sentences before do not say, such as "12 on the left".

    A text in which no list of numbers with places, or no choice, is understood does not contradict itself.
    """
    *before, last = _SENTENCE.split(text.strip()[:2000])
    listed = dict(pair for sentence in before for pair in _pairs(sentence))
    if not listed:
        return False
    results = _RESULT.findall(" ".join(before))
    answer = results[-1] if results else ""
    chosen = _pairs(last)
    if chosen:
        place, number = chosen[-1]
        return listed.get(place, number) != number or number not in listed.values() or answer not in ("", number)
    # The last named, and of "right" and "far right", which end together, the longer one.
    alone = [(found.end(), len(place), place) for place in listed for found in re.finditer(rf"\b{place} card\b", last)]
    return bool(alone and answer) and listed[max(alone)[-1]] != answer


def _pairs(sentence: str) -> list[tuple[str, str]]:
    """Return (place, number) of each number that the sentence gives a place."""
    found = [(place.removesuffix(" and"), number) for number, place in _NUMBER_FIRST.findall(sentence)]
    return found or [(place.removeprefix("and "), number) for place, number in _PLACE_FIRST.findall(sentence)]
