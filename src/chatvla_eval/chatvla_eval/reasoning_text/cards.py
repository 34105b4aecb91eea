# SPDX-License-Identifier: Apache-2.0
"""Pair card values with places in the tokens of one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from chatvla_eval.reasoning_text.tokens import Kind, Token

__all__ = ["find_cards"]

_SEPARATORS = {Kind.COMMA, Kind.AND}
_Mark = tuple[Kind, str | int]


def find_cards(tokens: Sequence[Token], used: set[int]) -> list[tuple[str, int]]:
    """Return the (place, value) pairs of one sentence, over the tokens not in `used`.

    Accepts "3 (left)", "left: 3", "3 is on the left", "left, middle and right show 3, 1 and 2" and "from left to
    right: 3, 1, 2". Returns nothing when values and places cannot be matched one to one, or when the sentence negates.
    """
    free = [token for index, token in enumerate(tokens) if index not in used]
    if any(token.kind is Kind.NOT for token in free):
        return []
    items = _items(free)
    marks = [mark for item in items for mark in item]
    values = [int(value) for kind, value in marks if kind is Kind.NUMBER]
    places = [str(value) for kind, value in marks if kind is Kind.PLACE]
    order = next((token.value for token in free if token.kind is Kind.ORDER), "")
    if order and values and not places:
        side = "left" if order == "rightward" else "right"
        return [(f"{rank} from {side}", value) for rank, value in enumerate(values, start=1)]
    if len(values) != len(places):
        return _whole_items(items)
    if all(len(item) == 2 and item[0][0] is not item[1][0] for item in items):
        return [pair for item in items for pair in _zip_runs(item)]
    return _zip_runs(marks)


def _items(tokens: Sequence[Token]) -> list[list[_Mark]]:
    """Return the values and places between separators, item by item, without empty items."""
    items: list[list[_Mark]] = [[]]
    for token in tokens:
        if token.kind in _SEPARATORS:
            items.append([])
        elif token.kind is Kind.NUMBER and token.number >= 0:
            items[-1].append((token.kind, token.number))
        elif token.kind is Kind.PLACE:
            items[-1].append((token.kind, token.value))
    return [item for item in items if item]


def _whole_items(items: Sequence[Sequence[_Mark]]) -> list[tuple[str, int]]:
    """Return the pairs of those items that hold one value and one place, when no item holds a value alone."""
    if any({kind for kind, _ in item} == {Kind.NUMBER} or len(item) > 2 for item in items):
        return []
    return [pair for item in items if len(item) == 2 for pair in _zip_runs(item)]


def _zip_runs(marks: Sequence[_Mark]) -> list[tuple[str, int]]:
    """Return the pairs of a sequence of equal runs: value place value place, or value value place place."""
    runs = [(kind, [value for _, value in group]) for kind, group in groupby(marks, key=lambda mark: mark[0])]
    if len(runs) % 2:
        return []
    pairs: list[tuple[str, int]] = []
    for (kind, first), (_, second) in zip(runs[::2], runs[1::2], strict=True):
        if len(first) != len(second):
            return []
        values, places = (first, second) if kind is Kind.NUMBER else (second, first)
        pairs += [(str(place), int(value)) for place, value in zip(places, values, strict=True)]
    return pairs
