# SPDX-License-Identifier: Apache-2.0
"""Normalise an answer as the VQA evaluation does before it compares (S. Antol et al., ICCV 2015).

Lower case, numbers in digits, no articles, no punctuation but points and commas within numbers, contractions with their
apostrophes.
"""

from __future__ import annotations

import itertools
import re

__all__ = ["normal_answer", "without_punctuation"]

_ARTICLES = frozenset({"a", "an", "the"})
_DIGITS = {
    word: str(value)
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
} | {"none": "0"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# Only a point before a digit stays, as in the evaluation's own script, whose look behind never excludes one.
_LONE_PERIOD = re.compile(r"\.(?!\d)")
_CONTRACTIONS = [
    "ain't",
    "aren't",
    "can't",
    "could've",
    "couldn't",
    "couldn't've",
    "didn't",
    "doesn't",
    "don't",
    "hadn't",
    "hadn't've",
    "hasn't",
    "haven't",
    "he'd",
    "he'd've",
    "he's",
    "how'd",
    "how'll",
    "how's",
    "isn't",
    "it'd",
    "it'd've",
    "it'll",
    "ma'am",
    "mightn't",
    "mightn't've",
    "might've",
    "mustn't",
    "must've",
    "needn't",
    "not've",
    "o'clock",
    "oughtn't",
    "'ow's'at",
    "shan't",
    "she'd've",
    "should've",
    "shouldn't",
    "shouldn't've",
    "somebody'd've",
    "somebody'll",
    "somebody's",
    "someone'd",
    "someone'd've",
    "someone'll",
    "someone's",
    "something'd",
    "something'd've",
    "something'll",
    "that's",
    "there'd",
    "there'd've",
    "there're",
    "there's",
    "they'd",
    "they'd've",
    "they'll",
    "they're",
    "they've",
    "'twas",
    "wasn't",
    "we'd've",
    "we've",
    "weren't",
    "what'll",
    "what're",
    "what's",
    "what've",
    "when's",
    "where'd",
    "where's",
    "where've",
    "who'd",
    "who'd've",
    "who'll",
    "who's",
    "who've",
    "why'll",
    "why're",
    "why's",
    "won't",
    "would've",
    "wouldn't",
    "wouldn't've",
    "y'all",
    "y'all'll",
    "y'all'd've",
    "you'd",
    "you'd've",
    "you'll",
    "you're",
    "you've",
]


def _misspelt(word: str) -> list[str]:
    """Return `word` without some or all of its apostrophes."""
    places = [index for index, letter in enumerate(word) if letter == "'"]
    gone = itertools.chain.from_iterable(itertools.combinations(places, n) for n in range(1, len(places) + 1))
    return ["".join(letter for index, letter in enumerate(word) if index not in out) for out in gone]


# The evaluation's own list spells this one backwards; scores are compared with others', so it stays.
_SPELT = {wrong: word for word in _CONTRACTIONS for wrong in _misspelt(word)} | {"somebody'd": "somebodyd"}


def normal_answer(answer: str) -> str:
    """Return `answer` in the form in which VQA answers are compared."""
    text = re.sub(r"[\n\t]", " ", answer).strip()
    words = [_DIGITS.get(word, word) for word in without_punctuation(text).lower().split()]
    return " ".join(_SPELT.get(word, word) for word in words if word not in _ARTICLES)


def without_punctuation(text: str) -> str:
    """Return `text` without punctuation: it vanishes at the edge of a word, else it becomes a space."""
    joined = _COMMA_IN_NUMBER.search(text) is not None
    kept = text
    for mark in _PUNCTUATION:
        at_edge = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if at_edge or joined else " ")
    return _LONE_PERIOD.sub("", kept)
