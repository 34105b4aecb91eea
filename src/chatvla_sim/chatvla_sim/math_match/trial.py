# SPDX-License-Identifier: Apache-2.0
"""Draw one trial of the math bench from split, seed and swap: equation, cards, places, handwriting, colours, light.

The same arguments give the same trial on every machine. Nothing here depends on the simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chatvla_sim.math_match.equations import OPERATORS, Equation, distractors, equations
from chatvla_sim.math_match.geometry import CARD_ROW_HALF_M, CARD_ROW_X_M, place_words
from chatvla_sim.math_match.handwriting import Style, draw_style

__all__ = ["INSTRUCTIONS", "TRIAL_SPLITS", "Card", "Look", "Trial", "draw_trial"]

TRIAL_SPLITS = ("in_domain", "open_world", "held_out")
INSTRUCTIONS = (
    "Answer the question and pick the card with the correct answer.",
    "Solve the equation on the whiteboard and place the right card on the board.",
    "Work out the sum on the board and put the card with the result into the slot.",
    "Pick the card that answers the equation and place it on the whiteboard.",
    "What is the result of the equation? Put the matching card on the board.",
    "Read the whiteboard, compute the answer, and bring the correct card to the board.",
)
OPERATOR_SHARES = (0.4, 0.4, 0.2)
NEVER_SEEN_SHARE = 0.2
"""Share of open-world trials whose operand pair no data shows."""
NEVER_SEEN_FONT_SHARE = 0.25
"""Share of open-world trials whose handwriting no data shows."""
CARD_X_JITTER_M = 0.022
CARD_Y_JITTER_M = 0.006
CARD_YAW_JITTER_RAD = 0.12


@dataclass(frozen=True, kw_only=True)
class Card:
    """One number card: its value and where it lies on the table [m, rad]."""

    value: int
    place: str
    x_m: float
    y_m: float
    yaw_rad: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colours and light of one trial; colours are RGB 0..1."""

    card: tuple[float, float, float]
    card_ink: tuple[float, float, float]
    board: tuple[float, float, float]
    board_ink: tuple[float, float, float]
    table: tuple[float, float, float]
    light: float
    """Brightness of the lamp, 1 is nominal."""
    light_direction: tuple[float, float, float]
    camera_shift_m: tuple[float, float, float]
    camera_turn_m: tuple[float, float, float]
    """Shift of the point that the camera looks at."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """All that the bench needs to build one scene."""

    split: str
    seed: int
    swap: bool
    equation: Equation
    instruction: str
    cards: tuple[Card, ...]
    """Left to right."""
    board_style: Style
    card_style: Style
    look: Look
    drawing_seed: int
    """Seed of the strokes drawn on board and cards."""
    subsets: tuple[str, ...]


def draw_look(rng: np.random.Generator) -> Look:
    def tint(low: float, high: float) -> tuple[float, float, float]:
        r, g, b = rng.uniform(low, high, 3)
        return (float(r), float(g), float(b))

    inks = ((0.05, 0.05, 0.06), (0.06, 0.10, 0.42), (0.45, 0.05, 0.06), (0.03, 0.28, 0.12))
    return Look(
        card=tint(0.78, 0.98),
        card_ink=inks[int(rng.integers(len(inks)))],
        board=(0.90, 0.90, 0.90),
        board_ink=inks[int(rng.integers(len(inks)))],
        table=tint(0.34, 0.44),
        light=float(rng.uniform(0.85, 1.1)),
        light_direction=(float(rng.uniform(0.0, 0.5)), float(rng.uniform(-0.4, 0.4)), -1.0),
        camera_shift_m=tuple(rng.uniform(-0.006, 0.006, 3).tolist()),
        camera_turn_m=tuple(rng.uniform(-0.004, 0.004, 3).tolist()),
    )


def draw_equation(split: str, rng: np.random.Generator) -> Equation:
    operator = OPERATORS[int(rng.choice(len(OPERATORS), p=OPERATOR_SHARES))]
    options = [e for e in equations(split) if e.operator == operator]
    return options[int(rng.integers(len(options)))]


def draw_cards(equation: Equation, rng: np.random.Generator) -> tuple[Card, ...]:
    count = int(rng.integers(3, 6))
    values = rng.permutation([equation.result, *distractors(equation, count - 1, rng)])
    half = CARD_ROW_HALF_M[count]
    return tuple(
        Card(
            value=int(value),
            place=place,
            x_m=CARD_ROW_X_M + float(rng.uniform(-CARD_X_JITTER_M, CARD_X_JITTER_M)),
            y_m=float(y) + float(rng.uniform(-CARD_Y_JITTER_M, CARD_Y_JITTER_M)),
            yaw_rad=float(rng.uniform(-CARD_YAW_JITTER_RAD, CARD_YAW_JITTER_RAD)),
        )
        for value, place, y in zip(values, place_words(count), np.linspace(half, -half, count), strict=True)
    )


def swap_cards(cards: tuple[Card, ...], rng: np.random.Generator) -> tuple[Card, ...]:
    """Return the cards with their values moved so that no value keeps its place; the places stay as they are."""
    while True:
        order = rng.permutation(len(cards))
        if (order != np.arange(len(cards))).all():
            return tuple(replace(card, value=cards[source].value) for card, source in zip(cards, order, strict=True))


def draw_parts(split: str, rng: np.random.Generator) -> tuple[str, str]:
    """Return the equation split and the handwriting part of one trial."""
    pair, font = rng.random(2)
    if split == "open_world":
        return (
            "held_out" if pair < NEVER_SEEN_SHARE else "open_world",
            "held_out" if font < NEVER_SEEN_FONT_SHARE else "open_world",
        )
    return {"in_domain": ("in_domain", "robot"), "held_out": ("held_out", "held_out")}[split]


def draw_trial(*, split: str, seed: int, swap: bool = False, fonts: Sequence[Path] | None = None) -> Trial:
    """Return the trial of `split` and `seed`.

    `swap` keeps everything but the cards' places; `fonts` replaces the split's handwriting on board and cards.
    Raises ValueError with the list of splits for an unknown one, MissingHandwritingError when fonts are not there.
    """
    if split not in TRIAL_SPLITS:
        raise ValueError(f"no split {split!r}; math_match has: {', '.join(TRIAL_SPLITS)}")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; use 0 or more")
    # One generator per matter: drawing more of one thing leaves the others as they were.
    scene, hand, looks, swaps = (np.random.default_rng([seed, TRIAL_SPLITS.index(split), k]) for k in range(4))
    equation_split, part = draw_parts(split, scene)
    equation = draw_equation(equation_split, scene)
    cards = draw_cards(equation, scene)
    subsets = [] if equation_split != "held_out" else ["never_seen_pair"]
    if part == "held_out" and not fonts:
        subsets.append("never_seen_font")
    return Trial(
        split=split,
        seed=seed,
        swap=swap,
        equation=equation,
        instruction=INSTRUCTIONS[int(scene.integers(len(INSTRUCTIONS)))],
        cards=swap_cards(cards, swaps) if swap else cards,
        board_style=draw_style(hand, part, fonts),
        card_style=draw_style(hand, part, fonts),
        look=draw_look(looks),
        drawing_seed=int(hand.integers(2**31)),
        subsets=tuple(subsets),
    )
