# SPDX-License-Identifier: Apache-2.0
"""Find which card one sentence says to pick, by place, by value or both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from chatvla_eval.reasoning_text.tokens import OR_WORDS, Kind, Token

__all__ = ["Claim", "find_claims"]

_ENDS = {Kind.STOP, Kind.NOT, Kind.PICK, Kind.PICKED, Kind.QUESTION}
_SOFT_ENDS = {Kind.AND, Kind.COMMA, Kind.EQUAL}
_JOINTS = {Kind.AND, Kind.COMMA}
_OF_A_NAME = {Kind.CARD, Kind.PLACE, Kind.NUMBER, Kind.OPEN, Kind.CLOSE}
_LINKS = OR_WORDS | {
    "a", "also", "an", "at", "both", "either", "else", "even", "in", "its", "number", "of", "on", "one", "that", "the",
    "this", "to", "too", "with",
}  # fmt: skip
"""Words that may stand in the name of a card: with any other, or a verb, it is a statement about cards."""
_NEGATION_REACH = 4


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of which card to pick; `explicit` when a verb of picking says so."""

    places: frozenset[str] = frozenset()
    values: frozenset[int] = frozenset()
    explicit: bool
    indices: frozenset[int] = field(default_factory=frozenset)


def find_claims(tokens: Sequence[Token], used: set[int]) -> list[Claim]:
    """Return the sentence's claims of which card to pick; those with a verb of picking add their tokens to `used`."""
    if any(token.kind is Kind.QUESTION for token in tokens):
        return []
    claims: list[Claim] = []
    for index, token in enumerate(tokens):
        claim = None
        if _negated(tokens, index):
            continue
        if token.kind is Kind.PICK:
            claim = _collect(tokens, range(index + 1, len(tokens)), used, explicit=True)
        elif token.kind is Kind.PICKED:
            forward = any(other.kind in {Kind.CARD, Kind.COLON, Kind.EQUAL} for other in tokens[index + 1 : index + 3])
            span = range(index + 1, len(tokens)) if forward else range(index - 1, -1, -1)
            claim = _collect(tokens, span, used, explicit=True, soft=not forward, through_equal=True)
        elif token.kind in {Kind.CORRECT, Kind.ANSWER}:
            claim = _judged(tokens, index, used)
        if claim and (claim.places or claim.values):
            claim = _with_others(tokens, index, claim, used)
            claims.append(claim)
            if claim.explicit:
                used.update(claim.indices)
    return claims


def _judged(tokens: Sequence[Token], index: int, used: set[int]) -> Claim | None:
    """Return the claim of "the correct card is the left one", "the left card is correct" or "the answer is left"."""
    following = tokens[index + 1].kind if index + 1 < len(tokens) else Kind.END
    names_card = following is Kind.CARD
    forward = _collect(tokens, range(index + 1, len(tokens)), used, explicit=False, through_equal=True)
    if names_card and (forward.places or forward.values):
        return forward
    if forward.places and not forward.values and tokens[index].kind is Kind.ANSWER:
        return forward
    before = tokens[max(0, index - 4) : index]
    if not names_card and any(other.kind is Kind.EQUAL for other in before):
        backward = _collect(tokens, range(index - 1, -1, -1), used, explicit=False, through_equal=True)
        return Claim(places=backward.places, explicit=False, indices=backward.indices)
    return None


def _negated(tokens: Sequence[Token], index: int) -> bool:
    return any(token.kind is Kind.NOT for token in tokens[max(0, index - _NEGATION_REACH) : index])


def _collect(
    tokens: Sequence[Token],
    span: Iterable[int],
    used: set[int],
    *,
    explicit: bool,
    soft: bool = True,
    through_equal: bool = False,
) -> Claim:
    """Return the places and values along `span` up to the end of the clause."""
    places: set[str] = set()
    values: set[int] = set()
    indices: set[int] = set()
    for index in span:
        token = tokens[index]
        found = bool(places or values)
        if token.kind in _ENDS or (
            soft and found and token.kind in _SOFT_ENDS and not (through_equal and token.kind is Kind.EQUAL)
        ):
            break
        if index in used:
            continue
        if token.kind is Kind.PLACE:
            places.add(token.value)
            indices.add(index)
        elif token.kind is Kind.NUMBER:
            values.add(token.number)
            indices.add(index)
    return Claim(places=frozenset(places), values=frozenset(values), explicit=explicit, indices=frozenset(indices))


@dataclass(frozen=True, kw_only=True)
class _Item:
    """One more card of a list."""

    places: frozenset[str]
    values: frozenset[int]
    indices: frozenset[int]
    joined: bool
    """Whether "and" or "or" joins it; a comma alone may also join what a statement begins with."""


def _with_others(tokens: Sequence[Token], verb: int, claim: Claim, used: set[int]) -> Claim:
    """Return `claim` with the cards that a list names beside it: "the left card, the middle one or the right one".

    `verb` is the index of the word that makes the claim: the list goes on away from it.
    """
    forward = max(claim.indices) > verb
    span = range(max(claim.indices) + 1, len(tokens)) if forward else range(min(claim.indices) - 1, -1, -1)
    items, ends = _items(tokens, span, used)
    taken: list[_Item] = []
    for item in items:
        pair, alone = item.places and item.values, not (claim.places and claim.values)
        if pair and (alone or not forward) and not any(tokens[index].is_or for index in span):
            # "Pick the right card, 3 (left), 1 (middle)": what lies where.
            ends = False
            break
        taken.append(item)
    if not ends:
        taken = taken[: max((number for number, item in enumerate(taken, start=1) if item.joined), default=0)]
    counted = any(" from " in place for place in claim.places)
    for item in taken:
        # "The rightmost card, the right one" is one card.
        same = not item.joined and all((" from " in place) != counted for place in item.places)
        claim = replace(
            claim,
            places=claim.places if same and claim.places else claim.places | item.places,
            values=claim.values | item.values,
            indices=claim.indices | item.indices,
        )
    return claim


def _items(tokens: Sequence[Token], span: Sequence[int], used: set[int]) -> tuple[list[_Item], bool]:
    """Return the cards that a list names along `span`, and whether the clause ends with them."""
    parts: list[list[int]] = [[]]
    joints: list[bool] = [False]
    ends = True
    for index in span:
        token = tokens[index]
        if token.kind is Kind.STOP:
            break
        if token.kind in _JOINTS:
            parts.append([])
            joints.append(token.kind is Kind.AND)
        elif index not in used and _names(token, any_word=len(parts) == 1):
            parts[-1].append(index)
        else:
            ends = False
            break
    items = []
    for part, joint in zip(parts[1:] if ends else parts[1:-1], joints[1:], strict=False):
        places = frozenset(tokens[index].value for index in part if tokens[index].kind is Kind.PLACE)
        values = frozenset(tokens[index].number for index in part if tokens[index].kind is Kind.NUMBER)
        joined = joint or any(tokens[index].is_or for index in part)
        items.append(_Item(places=places, values=values, indices=frozenset(part), joined=joined))
    return items, ends


def _names(token: Token, *, any_word: bool) -> bool:
    """Return whether a token may be part of a card's name; `any_word`: behind the name, other words may stand."""
    return token.kind in _OF_A_NAME or (token.kind is Kind.FILLER and (any_word or token.value in _LINKS))
