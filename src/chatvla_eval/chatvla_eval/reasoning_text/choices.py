# SPDX-License-Identifier: Apache-2.0
"""Find which card one sentence says to pick, by place, by value or both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from chatvla_eval.reasoning_text.tokens import Kind, Token

__all__ = ["Claim", "find_claims"]

_ENDS = {Kind.STOP, Kind.NOT, Kind.PICK, Kind.PICKED, Kind.QUESTION}
_SOFT_ENDS = {Kind.AND, Kind.COMMA, Kind.EQUAL}
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
