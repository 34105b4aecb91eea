# SPDX-License-Identifier: Apache-2.0
"""Read what a reasoning text of the math bench claims: equation, answer, cards with places, chosen card.

The text is cut into tokens and sentences; each sentence is searched for equations, answers, choices and cards by small
patterns over tokens, and the text is cut at a fixed length, so that any text is safe to read. What contradicts itself
counts as not said: a text that lists every card as its choice chooses none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from chatvla_eval.reasoning_text.cards import find_cards
from chatvla_eval.reasoning_text.choices import Claim, find_claims
from chatvla_eval.reasoning_text.equations import Equation, find_answers, find_equations, find_operands, find_sign
from chatvla_eval.reasoning_text.tokens import Kind, Token, tokenize

__all__ = ["CardChoice", "ParsedReasoning", "parse_reasoning"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CardChoice:
    """Which card the text says to pick: by place, by value, or both."""

    place: str | None = None
    value: int | None = None


@dataclass(frozen=True, kw_only=True)
class ParsedReasoning:
    """What a reasoning text claims; None or empty where it claims nothing or contradicts itself.

    Places are "far left", "left", "middle", "right", "far right", or counted: "N from left" and "N from right", where
    "leftmost" is "1 from left".
    """

    operands: tuple[int, int] | None = None
    operator: str | None = None
    """One of "+", "-", "x", "/"."""
    answer: int | None = None
    cards: tuple[tuple[str, int], ...] = ()
    """(place, value), in the order of the text, each pair once."""
    choice: CardChoice | None = None


def parse_reasoning(text: str) -> ParsedReasoning:
    """Return what `text` claims. Never fails; the first MAX_CHARACTERS characters count, the rest costs nothing."""
    equations: list[Equation] = []
    answers: list[int] = []
    claims: list[Claim] = []
    cards: list[tuple[str, int]] = []
    operands: list[int] = []
    signs: set[str] = set()
    for sentence in _sentences(tokenize(text)):
        used: set[int] = set()
        before = bool(equations)
        found = [] if _denies(sentence) else find_equations(sentence, used)
        equations += found
        if not found:
            signs |= find_sign(sentence)
        answers += find_answers(sentence, used, after_equation=before)
        operands += find_operands(sentence, used)
        claims += find_claims(sentence, used)
        cards += find_cards(sentence, used)
    board = _board_equation(equations)
    if not equations and len(operands) == 2:
        read = (operands[0], operands[1])
    else:
        read = (board.left, board.right) if board else None
    operator = board.operator if board else _only(signs) if not equations else None
    return ParsedReasoning(
        operands=read,
        operator=operator,
        answer=_answer(equations, board, answers),
        cards=tuple(dict.fromkeys(cards)),
        choice=_choice(claims),
    )


def _sentences(tokens: Sequence[Token]) -> list[list[Token]]:
    """Return the tokens between sentence ends; a question keeps its mark as last token, and "Or" goes on."""
    sentences: list[list[Token]] = [[]]
    for token, following in zip(tokens, [*tokens[1:], Token(Kind.END)], strict=False):
        if token.kind is Kind.END and following.is_or:
            continue
        if token.kind is not Kind.END:
            sentences[-1].append(token)
        if token.kind in {Kind.END, Kind.QUESTION}:
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _denies(tokens: Sequence[Token]) -> bool:
    """Return whether the sentence negates before its first number, as in "the board does not show 3+4"."""
    for token in tokens:
        if token.kind in {Kind.NOT, Kind.NUMBER}:
            return token.kind is Kind.NOT
    return False


def _board_equation(equations: Collection[Equation]) -> Equation | None:
    """Return the one equation that the text says is on the board; without such words, the only one there is."""
    on_board = [equation for equation in equations if equation.on_board]
    for candidates in (on_board, list(equations)):
        if candidates:
            return candidates[0] if len({equation.key for equation in candidates}) == 1 else None
    return None


def _answer(equations: Collection[Equation], board: Equation | None, stated: Sequence[int]) -> int | None:
    """Return the answer that the text gives for the board's equation, or for the only equation it solves."""
    solved = {
        equation.answer for equation in equations if equation.answer is not None and board and equation.key == board.key
    }
    direct = solved | set(stated)
    if direct:
        return _only(direct)
    return _only({equation.answer for equation in equations if equation.answer is not None})


def _choice(claims: Sequence[Claim]) -> CardChoice | None:
    """Return the chosen card; verbs of picking count before judgements such as "the left one is correct"."""
    explicit = [claim for claim in claims if claim.explicit]
    counted = explicit or claims
    places = {place for claim in counted for place in claim.places}
    values = {value for claim in counted for value in claim.values}
    if not counted or len(places) > 1 or len(values) > 1:
        return None
    return CardChoice(place=_only(places), value=_only(values))


def _only(items: Collection[T]) -> T | None:
    """Return the single item, or None when there is none or more than one."""
    return next(iter(items)) if len(items) == 1 else None
