# SPDX-License-Identifier: Apache-2.0
"""Find equations and stated answers in the tokens of one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chatvla_eval.reasoning_text.tokens import Kind, Token

__all__ = ["Equation", "find_answers", "find_equations", "find_operands", "find_sign"]

_BETWEEN = {Kind.FILLER, Kind.COMMA, Kind.DASH, Kind.CLOSE, Kind.STOP}
_BEFORE_ANSWER = {Kind.FILLER, Kind.EQUAL, Kind.ANSWER, Kind.COLON, Kind.OPEN, Kind.DASH}
_REACH = 4
"""So many tokens may lie between the parts of one claim."""


@dataclass(frozen=True, kw_only=True)
class Equation:
    """One equation of the text; `operator` is "+", "-", "x" or "/"; `answer` is None when the text gives none."""

    left: int
    operator: str
    right: int
    answer: int | None = None
    on_board: bool = False
    """True when its sentence speaks of the board."""

    @property
    def key(self) -> tuple[int, str, int]:
        """What was read, without the answer."""
        return (self.left, self.operator, self.right)


def find_equations(tokens: Sequence[Token], used: set[int]) -> list[Equation]:
    """Return the equations of one sentence and add the indices of their tokens to `used`.

    A chain such as 1+2+3 is consumed and returned as nothing: the bench has two operands. An equation with several
    answers comes once with each.
    """
    on_board = any(token.kind is Kind.BOARD for token in tokens)
    found: list[Equation] = []
    index = 0
    while index < len(tokens):
        equation, end = _infix(tokens, index) or _prefix(tokens, index) or (None, index)
        if end == index:
            index += 1
            continue
        start, stated = index, end
        if equation is not None:
            equation, start, end = _with_answer(tokens, replace(equation, on_board=on_board), index, end)
            found.append(equation)
            others = _others(tokens, end - 1, used) if end > stated else []
            found += [replace(equation, answer=tokens[position].number) for position in others]
            used.update(others)
        used.update(range(start, end))
        index = end
    return found


def _is_infix(token: Token) -> bool:
    return token.kind in {Kind.OPERATOR, Kind.DASH}


def _infix(tokens: Sequence[Token], index: int) -> tuple[Equation | None, int] | None:
    """Return the equation `number operator number` at `index` and its end; the equation is None for a chain."""
    end = index
    while _kinds(tokens, end, Kind.NUMBER) and end + 2 < len(tokens) and _is_infix(tokens[end + 1]):
        if tokens[end + 2].kind is not Kind.NUMBER:
            break
        end += 2
    if end == index:
        return None
    if end > index + 2:
        return None, end + 1
    left, sign, right = tokens[index], tokens[index + 1], tokens[index + 2]
    operator = "-" if sign.kind is Kind.DASH else sign.value
    if left.number < 0 or right.number < 0:
        return None, end + 1
    return Equation(left=left.number, operator=operator, right=right.number), end + 1


def _prefix(tokens: Sequence[Token], index: int) -> tuple[Equation, int] | None:
    """Return the equation in words at `index`, such as "sum of 3 and 4" or "subtract 4 from 9", and its end."""
    token = tokens[index]
    if token.kind not in {Kind.SUM_OF, Kind.PICK}:
        return None
    numbers = [i for i in range(index + 1, min(index + 2 + _REACH, len(tokens))) if tokens[i].kind is Kind.NUMBER][:2]
    if len(numbers) < 2 or any(tokens[i].number < 0 for i in numbers):
        return None
    joints = [tokens[i].kind for i in range(index + 1, numbers[1]) if i != numbers[0]]
    first, second = tokens[numbers[0]].number, tokens[numbers[1]].number
    if Kind.FROM in joints and (token.kind is Kind.PICK or token.value in {"from", "-"}):
        return Equation(left=second, operator="-", right=first), numbers[1] + 1
    if token.kind is Kind.PICK or token.value == "from" or not set(joints) <= {Kind.AND, Kind.FILLER}:
        return None
    if token.value == "+" and Kind.AND not in joints:
        first, second = second, first
    return Equation(left=first, operator=token.value, right=second), numbers[1] + 1


def _with_answer(tokens: Sequence[Token], equation: Equation, start: int, end: int) -> tuple[Equation, int, int]:
    """Return the equation with the answer stated right after or before it, and the claim's bounds."""
    position = _skip(tokens, end, _BETWEEN, 3)
    if _kinds(tokens, position, Kind.EQUAL):
        position = _skip(tokens, position, _BEFORE_ANSWER, _REACH)
        if _is_answer(tokens, position):
            return replace(equation, answer=_signed(tokens, position)), start, position + 1
    if start >= 2 and _kinds(tokens, start - 1, Kind.EQUAL) and tokens[start - 1].value != "is":
        before = start - 2
        if tokens[before].kind is Kind.NUMBER and not (before and _is_infix(tokens[before - 1])):
            return replace(equation, answer=tokens[before].number), before, end
    return equation, start, end


def find_answers(tokens: Sequence[Token], used: set[int], *, after_equation: bool) -> list[int]:
    """Return the answers that one sentence states outside its equations, and add their tokens to `used`.

    "the answer is 7", "7 is the result"; and, when an equation stood before, "that makes 7".
    """
    answers: list[int] = []
    for index, token in enumerate(tokens):
        position = -1
        if token.kind is Kind.ANSWER:
            position = _skip(tokens, index + 1, _BEFORE_ANSWER | {Kind.COMMA, Kind.BOARD}, 2 * _REACH)
        elif after_equation and token.kind is Kind.EQUAL and token.value != "is" and _only_fillers(tokens[:index]):
            position = _skip(tokens, index + 1, _BEFORE_ANSWER, 2)
        elif token.kind is Kind.NUMBER and index not in used and _kinds(tokens, index + 1, Kind.EQUAL):
            answer = _skip(tokens, index + 2, {Kind.FILLER, Kind.CORRECT}, 2)
            if _kinds(tokens, answer, Kind.ANSWER) and not _kinds(tokens, answer + 1, Kind.CARD):
                position = index
        if position not in used and _is_answer(tokens, position):
            others = _others(tokens, position, used)
            if position >= 2 and tokens[position - 1].is_or and tokens[position - 2].kind is Kind.NUMBER:
                others.append(position - 2)
            answers += [_signed(tokens, position), *(tokens[other].number for other in others)]
            used.update((position, *others))
    return answers


def _others(tokens: Sequence[Token], position: int, used: set[int]) -> list[int]:
    """Return where further numbers are said in place of the one at `position`, as in "7, 8 or 9".

    Without "or", a list counts where it ends the clause: "the answer is 7, 3 is on the left" has one answer.
    """
    found: list[int] = []
    sure, index = 0, position + 1
    while True:
        joined = _skip(tokens, index, {Kind.COMMA, Kind.AND}, 2)
        after = _skip(tokens, joined, {Kind.FILLER, Kind.EQUAL}, _REACH) if _is_or(tokens, joined) else joined
        if after == index or after in used or not _is_answer(tokens, after):
            break
        found.append(after)
        sure, index = len(found) if after > joined else sure, after + 1
    ends = joined >= len(tokens) or tokens[joined].kind is Kind.STOP
    return found if ends else found[:sure]


def find_operands(tokens: Sequence[Token], used: set[int]) -> list[int]:
    """Return the numbers of a sentence such as "the numbers are 3 and 4", and add them to `used`."""
    kinds = {token.kind for token in tokens}
    if Kind.OPERANDS not in kinds or kinds & {Kind.PLACE, Kind.CARD, Kind.ORDER, Kind.PICK, Kind.NOT}:
        return []
    free = [index for index, token in enumerate(tokens) if token.kind is Kind.NUMBER and index not in used]
    used.update(free)
    return [tokens[index].number for index in free]


def find_sign(tokens: Sequence[Token]) -> set[str]:
    """Return the operators that a sentence names apart from any equation, such as "the operator is a plus"."""
    if any(token.kind is Kind.NOT for token in tokens):
        return set()
    signs = {token.value for token in tokens if token.kind is Kind.SIGN and token.value}
    for index, token in enumerate(tokens):
        if token.kind is Kind.SIGN and not token.value:
            near = tokens[max(0, index - 2) : index + 2 + _REACH]
            signs |= {"-" if other.kind is Kind.DASH else other.value for other in near if _is_infix(other)}
    return signs


def _is_answer(tokens: Sequence[Token], position: int) -> bool:
    """Return whether a number stands at `position` that is not the start of another equation."""
    if not 0 <= position < len(tokens) or tokens[position].kind is not Kind.NUMBER:
        return False
    starts = position + 2 < len(tokens) and _is_infix(tokens[position + 1]) and tokens[position + 2].kind is Kind.NUMBER
    return not starts


def _signed(tokens: Sequence[Token], position: int) -> int:
    """Return the number at `position`; a dash before it makes it -1, which no answer of the bench is."""
    after_dash = position > 0 and tokens[position - 1].kind is Kind.DASH
    return -1 if after_dash and _kinds(tokens, position - 2, Kind.EQUAL) else tokens[position].number


def _is_or(tokens: Sequence[Token], index: int) -> bool:
    return 0 <= index < len(tokens) and tokens[index].is_or


def _kinds(tokens: Sequence[Token], index: int, kind: Kind) -> bool:
    return 0 <= index < len(tokens) and tokens[index].kind is kind


def _skip(tokens: Sequence[Token], index: int, kinds: set[Kind], most: int) -> int:
    """Return the first index from `index` on whose kind is not in `kinds`, at most `most` further."""
    end = index + most
    while index < min(end, len(tokens)) and tokens[index].kind in kinds:
        index += 1
    return index


def _only_fillers(tokens: Sequence[Token]) -> bool:
    return len(tokens) <= _REACH and all(token.kind in {Kind.FILLER, Kind.STOP, Kind.COMMA} for token in tokens)
