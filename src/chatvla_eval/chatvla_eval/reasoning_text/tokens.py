# SPDX-License-Identifier: Apache-2.0
"""Turn a reasoning text into tokens: numbers, operators, places, verbs, separators. Linear in the text's length.

One token is a kind and a value. Words that carry no meaning for the scores become FILLER, so that patterns can count
how far apart two tokens are.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["MAX_CHARACTERS", "OR_WORDS", "Kind", "Token", "tokenize"]

MAX_CHARACTERS = 8000
"""Longer texts are cut here: a reasoning is a few sentences, and a model that loops says nothing new."""
OR_WORDS = frozenset({"or", "maybe", "perhaps", "possibly"})
"""Words without a meaning of their own that set one thing in place of another."""
_MAX_DIGITS = 6


class Kind(Enum):
    """What a token means to the parser."""

    NUMBER = auto()
    OPERATOR = auto()
    EQUAL = auto()
    PLACE = auto()
    ORDER = auto()
    CARD = auto()
    BOARD = auto()
    ANSWER = auto()
    CORRECT = auto()
    PICK = auto()
    PICKED = auto()
    NOT = auto()
    STOP = auto()
    AND = auto()
    COMMA = auto()
    COLON = auto()
    OPEN = auto()
    CLOSE = auto()
    DASH = auto()
    END = auto()
    QUESTION = auto()
    SUM_OF = auto()
    FROM = auto()
    OPERANDS = auto()
    SIGN = auto()
    FILLER = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its kind and, for numbers, operators, places, orders and words without a meaning, its value."""

    kind: Kind
    value: str = ""

    @property
    def number(self) -> int:
        """Value of a NUMBER token; -1 when it is no whole number of at most six digits."""
        return int(self.value) if self.value.isdigit() and len(self.value) <= _MAX_DIGITS else -1

    @property
    def is_or(self) -> bool:
        """Whether it is one of OR_WORDS."""
        return self.kind is Kind.FILLER and self.value in OR_WORDS


_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORD_VALUES = {word: value for value, word in enumerate(_UNITS)} | {
    word: 20 + 10 * index for index, word in enumerate(_TENS)
}
_ORDINALS = {
    "first": 1,
    "1st": 1,
    "second": 2,
    "2nd": 2,
    "third": 3,
    "3rd": 3,
    "fourth": 4,
    "4th": 4,
    "fifth": 5,
    "5th": 5,
}

_SIDE = r"(?:left|right|middle|center|centre|central)"
_PHRASES: tuple[tuple[str, Kind, str], ...] = (
    # Order matters: the first phrase that fits at a word is taken.
    (r"(?:from )?(?:the )?left(?:most)?(?: side)? to (?:the )?right(?:most)?(?: side)?", Kind.ORDER, "rightward"),
    (r"(?:from )?(?:the )?right(?:most)?(?: side)? to (?:the )?left(?:most)?(?: side)?", Kind.ORDER, "leftward"),
    (r"(?:right|left) (?:arm|gripper|hand(?! side)|robot)s?", Kind.FILLER, ""),
    (r"right (?:answer|result|value|number|solution|sum|product|away|now)", Kind.ANSWER, ""),
    # "The right card is the left card": here, and only before another place, right means correct.
    (rf"right(?= (?:card|one) is (?:(?:the|on|in|at|very|far) )*{_SIDE})", Kind.CORRECT, ""),
    (r"(?:all|that is|that's|is) right(?= *[.!])", Kind.FILLER, ""),
    (r"(?:far|very)(?: to the| on the|-| )?left(?: hand| side)*", Kind.PLACE, "far left"),
    (r"(?:far|very)(?: to the| on the|-| )?right(?: hand| side)*", Kind.PLACE, "far right"),
    (
        r"(?:(?:furthest|farthest|extreme|outer)[ -](?:to the )?left|left ?most)(?: hand| side)*",
        Kind.PLACE,
        "1 from left",
    ),
    (
        r"(?:(?:furthest|farthest|extreme|outer)[ -](?:to the )?right|right ?most)(?: hand| side)*",
        Kind.PLACE,
        "1 from right",
    ),
    (r"(?:inner|near|middle|center|centre|mid)[ -]left", Kind.PLACE, "left"),
    (r"(?:inner|near|middle|center|centre|mid)[ -]right", Kind.PLACE, "right"),
    (r"(?:left|right)(?: hand)? of the (?:white)?board", Kind.FILLER, ""),
    (r"left(?: hand)?(?: side)?", Kind.PLACE, "left"),
    (r"right(?: hand)?(?: side)?", Kind.PLACE, "right"),
    (r"(?:in )?(?:the )?(?:very )?(?:middle|center|centre|central|mid|in between)", Kind.PLACE, "middle"),
    (r"multiplied by|times", Kind.OPERATOR, "x"),
    (r"plus|added to", Kind.OPERATOR, "+"),
    (r"minus|take away", Kind.OPERATOR, "-"),
    (r"divided by", Kind.OPERATOR, "/"),
    (r"(?:sum|total) of|add(?:ing)?(?! up)", Kind.SUM_OF, "+"),
    (r"product of|multiply(?:ing)?", Kind.SUM_OF, "x"),
    (r"difference (?:of|between)", Kind.SUM_OF, "-"),
    (r"subtract(?:ing)?|taking", Kind.SUM_OF, "from"),
    (r"addition", Kind.SIGN, "+"),
    (r"subtraction", Kind.SIGN, "-"),
    (r"multiplication", Kind.SIGN, "x"),
    (r"division", Kind.SIGN, "/"),
    (r"operators?|operation|signs?", Kind.SIGN, ""),
    (r"operands|numbers|digits|(?:first|second) (?:number|operand|term|digit)", Kind.OPERANDS, ""),
    (r"(?:is |are |be )?equals?(?: to)?|comes? to|adds? up to|amounts? to|results? in|works? out to", Kind.EQUAL, ""),
    (r"go for|reach for|reach|get(?= (?:the|that|this|card)\b)", Kind.PICK, ""),
    (r"makes?|gives?|giving|yields?|totals|gets?|evaluates to", Kind.EQUAL, ""),
    (
        r"is|are|was|be|shows?|showing|reads?|has|have|holds?|holding|bears?|bearing|says|contains|carries",
        Kind.EQUAL,
        "is",
    ),
    (r"isn't|aren't|not|never|don't|doesn't|shouldn't|can't|cannot|won't|avoid|no", Kind.NOT, ""),
    (r"number cards?|cards?|tiles?|plates?|pieces?|blocks?", Kind.CARD, ""),
    (r"white ?boards?|boards?|equation|expression|problem|question|formula", Kind.BOARD, ""),
    (r"answer|result|solution|sum|product|difference|total", Kind.ANSWER, ""),
    (r"correct|matching|matches|match|target|desired|wanted", Kind.CORRECT, ""),
    (r"picked|chosen|selected|grabbed|grasped|taken|lifted", Kind.PICKED, ""),
    (r"pick|picking|choose|choosing|select|selecting|grab|grabbing|take|grasp|grasping|lift", Kind.PICK, ""),
    (r"instead of|rather than|because|since|then|to place|to put|place|put|placing|putting|as|so", Kind.STOP, ""),
    (r"and", Kind.AND, ""),
    (r"from", Kind.FROM, ""),
)
_WORD = re.compile(
    r"\b(?:" + "|".join(f"(?P<p{index}>{pattern})" for index, (pattern, _, _) in enumerate(_PHRASES)) + r")\b"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_PLAIN_WORD = re.compile(r"[a-z][a-z']*|\d(?:st|nd|rd|th)\b")
_ORDINAL = re.compile(
    r"(1st|2nd|3rd|4th|5th|first|second|third|fourth|fifth)"
    r"(?: (?:card|tile|one)\b(?:,? from (?:the )?(left|right)\b)?|,? from (?:the )?(left|right)\b)"
)
_COUNT = re.compile(
    r"(?:number |different |numbered |white )*(?:cards|tiles|numbers|options|choices|plates|pieces|arms)\b"
)
_SIGNS = {
    "+": (Kind.OPERATOR, "+"), "*": (Kind.OPERATOR, "x"), "/": (Kind.OPERATOR, "/"), "-": (Kind.DASH, ""),
    "=": (Kind.EQUAL, "="), ",": (Kind.COMMA, ""), ":": (Kind.COLON, ""), "(": (Kind.OPEN, ""), ")": (Kind.CLOSE, ""),
    "[": (Kind.OPEN, ""), "]": (Kind.CLOSE, ""), ".": (Kind.END, ""), "!": (Kind.END, ""), ";": (Kind.END, ""),
    "\n": (Kind.END, ""), "?": (Kind.QUESTION, ""), "&": (Kind.AND, ""), ">": (Kind.EQUAL, "="), "|": (Kind.COMMA, ""),
}  # fmt: skip
_UNIFIED = str.maketrans(
    dict.fromkeys("×·⋅∗✕✖", "*") | dict.fromkeys("−–—‐‑", "-") | dict.fromkeys("→⇒", "=")
    | dict.fromkeys("’‘", "'") | dict.fromkeys("\t\r_", " ") | {"÷": "/"}
)  # fmt: skip
_PRONOUN_BEFORE = {
    "the", "this", "that", "which", "each", "left", "right", "middle", "center", "centre", "leftmost", "rightmost",
    "correct", "hand", "side",
}  # fmt: skip
"""After these words "one" is no number: "the left one"."""


def tokenize(text: str) -> list[Token]:
    """Return the tokens of the first MAX_CHARACTERS characters of `text`, in order."""
    unified = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]).translate(_UNIFIED).lower()
    plain = re.sub(" +", " ", unified)[:MAX_CHARACTERS]
    tokens: list[Token] = []
    position = 0
    word = ""
    while position < len(plain):
        character = plain[position]
        if character.isdigit() or character.isalpha():
            token, end = _word_token(plain, position, word, tokens)
            word = plain[position:end]
        elif character in _SIGNS:
            token, end = Token(*_SIGNS[character]), position + 1
        else:
            token, end = None, position + 1
        if token is not None:
            tokens.append(token)
        position = end
    return tokens


def _word_token(plain: str, position: int, before: str, tokens: list[Token]) -> tuple[Token | None, int]:
    """Return the token that starts with the letter or digit at `position`, and where it ends."""
    if found := _ORDINAL.match(plain, position):
        side = found.group(2) or found.group(3) or "left"
        return Token(Kind.PLACE, f"{_ORDINALS[found.group(1)]} from {side}"), found.end()
    if found := _NUMBER.match(plain, position):
        if _COUNT.match(plain, _skip_space(plain, found.end())):
            return Token(Kind.FILLER), found.end()
        digits = found.group()
        return Token(Kind.NUMBER, str(int(digits)) if _is_short_whole(digits) else digits), found.end()
    if plain[position] == "x" and not plain[position + 1 : position + 2].isalpha():
        return Token(Kind.OPERATOR, "x"), position + 1
    if number := _number_word(plain, position, before):
        return number
    if found := _WORD.match(plain, position):
        _, kind, value = _PHRASES[int(str(found.lastgroup)[1:])]
        return Token(kind, value), found.end()
    found = _PLAIN_WORD.match(plain, position)
    return (Token(Kind.FILLER, found.group()), found.end()) if found else (Token(Kind.FILLER), position + 1)


def _is_short_whole(digits: str) -> bool:
    return digits.isdigit() and digits.isascii() and len(digits) <= _MAX_DIGITS


def _number_word(plain: str, position: int, before: str) -> tuple[Token, int] | None:
    """Return the number written in words at `position`, such as "twenty-one", and where it ends."""
    value, end = _units_and_tens(plain, position)
    if end == position:
        return None
    if _COUNT.match(plain, _skip_space(plain, end)):
        return Token(Kind.FILLER), end
    if value == 1 and (before.split(" ")[-1] in _PRONOUN_BEFORE or plain.startswith(" of", end)):
        return Token(Kind.FILLER, "one"), end
    return Token(Kind.NUMBER, str(value)), end


def _units_and_tens(plain: str, position: int) -> tuple[int, int]:
    """Return the value of the number words at `position` and where they end: at `position` when there are none."""
    found = _PLAIN_WORD.match(plain, position)
    word = found.group() if found else ""
    if found is None or word not in _WORD_VALUES:
        return 0, position
    value, end = _WORD_VALUES[word], found.end()
    following = _PLAIN_WORD.match(plain, end + 1) if plain[end : end + 1] in {" ", "-"} else None
    if following and value >= 20 and 0 < _WORD_VALUES.get(following.group(), 99) < 10:
        return value + _WORD_VALUES[following.group()], following.end()
    if following and following.group() == "hundred" and value < 10:
        return 100 * value, following.end()
    return value, end


def _skip_space(plain: str, position: int) -> int:
    """Return the position of the next character that is not a space, at most two further."""
    end = min(position + 2, len(plain))
    while position < end and plain[position] == " ":
        position += 1
    return position
