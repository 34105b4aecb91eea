# SPDX-License-Identifier: Apache-2.0
"""Say which equations exist and which split each belongs to, fixed for all time by a hash.

An operand pair is an operator with its two operands, where order does not count: 3+4 and 4+3 are one pair.
- `held_out`: one fifth of all pairs of each operator; no training data of any kind may show them.
- `in_domain`: one equation each of IN_DOMAIN_COUNT pairs; the only equations of robot data.
- `open_world`: both orders of all other pairs; image-text data may show them, robot data never does.
The other order of an `in_domain` equation belongs to no split: trials never ask it, image-text data may show it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

__all__ = [
    "DATA_SPLITS",
    "EQUATION_SPLITS",
    "OPERATORS",
    "Equation",
    "all_equations",
    "distractors",
    "equation_split",
    "equations",
    "parse_equation",
]

OPERATORS = ("+", "-", "x")
EQUATION_SPLITS = ("in_domain", "open_world", "held_out")
DATA_SPLITS = {"robot": ("in_domain",), "image_text": ("in_domain", "open_world", "reversed")}
"""Which equation splits a kind of training data may show ("reversed": the other order of an in_domain equation)."""

SPLIT_KEY = "chatvla math match v1"
"""Changing this key changes every split and makes all results incomparable."""
LARGEST_OPERAND = {"+": 20, "-": 20, "x": 10}
IN_DOMAIN_COUNT = {"+": 48, "-": 48, "x": 24}
HELD_OUT_SHARE = 5
"""One pair in this many is held out."""


@dataclass(frozen=True, kw_only=True)
class Equation:
    """A left-hand side such as 3+4; no unit, whole numbers."""

    left: int
    operator: str
    right: int

    @property
    def text(self) -> str:
        """The equation as the reasoning writes it, such as "3+4"."""
        return f"{self.left}{self.operator}{self.right}"

    @property
    def result(self) -> int:
        """The right answer."""
        return apply_operator(self.left, self.operator, self.right)

    @property
    def pair(self) -> tuple[str, int, int]:
        """Operator and operands, smaller first: the same for both orders."""
        return (self.operator, min(self.left, self.right), max(self.left, self.right))


def apply_operator(left: int, operator: str, right: int) -> int:
    """Return left (operator) right."""
    return {"+": left + right, "-": left - right, "x": left * right}[operator]


def parse_equation(text: str) -> Equation:
    """Return the equation written as "3+4", "12 - 5" or "6x7". Raises ValueError for anything else."""
    compact = text.replace(" ", "").replace("×", "x").replace("*", "x").lower()
    for operator in OPERATORS:
        left, found, right = compact.partition(operator)
        if found and left.isdecimal() and right.isdecimal():
            return Equation(left=int(left), operator=operator, right=int(right))
    raise ValueError(f"{text!r} is no equation; write two whole numbers with one of: {' '.join(OPERATORS)}")


def hash_rank(*parts: object) -> str:
    """Sort key that never changes between machines, versions and runs."""
    return hashlib.sha256(repr((SPLIT_KEY, *parts)).encode()).hexdigest()


@cache
def all_equations() -> tuple[Equation, ...]:
    """Every equation of the task: + and - on 0..20 without negative results, x on 0..10."""
    found = []
    for operator in OPERATORS:
        operands = range(LARGEST_OPERAND[operator] + 1)
        found += [
            Equation(left=a, operator=operator, right=b)
            for a in operands
            for b in operands
            if operator != "-" or a >= b
        ]
    return tuple(found)


@cache
def pair_splits() -> dict[tuple[str, int, int], str]:
    """Split of every operand pair."""
    splits: dict[tuple[str, int, int], str] = {}
    for operator in OPERATORS:
        pairs = sorted({e.pair for e in all_equations() if e.operator == operator}, key=lambda pair: hash_rank(*pair))
        held_out = len(pairs) // HELD_OUT_SHARE
        in_domain = held_out + IN_DOMAIN_COUNT[operator]
        for index, pair in enumerate(pairs):
            splits[pair] = "held_out" if index < held_out else "in_domain" if index < in_domain else "open_world"
    return splits


@cache
def in_domain_equations() -> tuple[Equation, ...]:
    chosen = []
    for pair, split in pair_splits().items():
        if split == "in_domain":
            orders = [e for e in all_equations() if e.pair == pair]
            chosen.append(min(orders, key=lambda e: hash_rank("order", e.text)))
    return tuple(chosen)


def equation_split(equation: Equation) -> str:
    """Return the split of `equation`: in_domain, open_world, held_out, or "reversed" (see DATA_SPLITS)."""
    split = pair_splits()[equation.pair]
    return "reversed" if split == "in_domain" and equation not in in_domain_equations() else split


@cache
def equations(split: str) -> tuple[Equation, ...]:
    """Return the equations of one split. Raises ValueError with the list of splits for another name."""
    if split not in EQUATION_SPLITS:
        raise ValueError(f"no equation split {split!r}; there are: {', '.join(EQUATION_SPLITS)}")
    if split == "in_domain":
        return in_domain_equations()
    return tuple(e for e in all_equations() if pair_splits()[e.pair] == split)


def distractors(equation: Equation, count: int, rng: np.random.Generator) -> list[int]:
    """Return `count` wrong answers, distinct and plausible: near misses, operands, results of the other operators."""
    result = equation.result
    others = [apply_operator(equation.left, op, equation.right) for op in OPERATORS if op != equation.operator]
    groups = [
        [result + step for step in (-2, -1, 1, 2, 10, -10)],
        [equation.left, equation.right],
        others,
    ]
    chosen: list[int] = []
    for group in rng.permutation(3 * count) % 3:
        options = sorted({v for v in groups[group] if 0 <= v <= 100 and v != result and v not in chosen})
        if options and len(chosen) < count:
            chosen.append(int(rng.choice(options)))
    spare = [v for v in range(1, 41) if v != result and v not in chosen]
    while len(chosen) < count:
        chosen.append(int(rng.choice(spare)))
        spare.remove(chosen[-1])
    return chosen
