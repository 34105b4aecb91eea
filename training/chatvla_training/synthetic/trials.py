# SPDX-License-Identifier: Apache-2.0
"""Draw math scenes that image-text data may show. No simulator, no torch.

Never shown: held-out operand pairs in either order, held-out fonts, held-out digit images (docs/training.md). This is
the only place where image-text data chooses equations and handwriting, so a test of this file covers all of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from chatvla_sim.math_match.equations import DATA_SPLITS, OPERATORS, Equation, all_equations, equation_split
from chatvla_sim.math_match.handwriting import draw_style
from chatvla_sim.math_match.trial import Trial, draw_cards, draw_trial

__all__ = ["image_text_equations", "image_text_trial", "wider_equations"]

HANDWRITING_PARTS = ("robot", "open_world")
OPERATOR_SHARES = (0.4, 0.3, 0.3)
WIDER_LARGEST = {"+": 40, "-": 40, "x": 12}
WIDER_SHARE = 0.35
"""Share of scenes whose equation the bench never asks."""


@cache
def image_text_equations() -> tuple[Equation, ...]:
    """Return every equation that image-text data may show."""
    return tuple(e for e in all_equations() if equation_split(e) in DATA_SPLITS["image_text"])


@cache
def wider_equations() -> tuple[Equation, ...]:
    """Return equations with an operand beyond the bench's and results of two digits at most.

    With the bench's alone a small model learns by heart which operands go together, and reads the others as those.
    """
    known = {e.pair for e in all_equations()}
    found = []
    for operator in OPERATORS:
        operands = range(WIDER_LARGEST[operator] + 1)
        found += [Equation(left=a, operator=operator, right=b) for a in operands for b in operands]
    return tuple(e for e in found if e.pair not in known and 0 <= e.result < 100)


def image_text_trial(seed: int) -> Trial:
    """Return a scene for image-text data: an allowed or wider equation, its answer among the cards, an allowed hand."""
    rng = np.random.default_rng([seed, 7301])
    part = HANDWRITING_PARTS[int(rng.integers(len(HANDWRITING_PARTS)))]
    operator = OPERATORS[int(rng.choice(len(OPERATORS), p=OPERATOR_SHARES))]
    shown = wider_equations() if rng.random() < WIDER_SHARE else image_text_equations()
    options = [e for e in shown if e.operator == operator]
    equation = options[int(rng.integers(len(options)))]
    # Colours, light and camera come from the bench's own draw; all that carries meaning is drawn here.
    frame = draw_trial(split="in_domain", seed=seed)
    cards = draw_cards(equation, rng)
    if rng.random() < 0.3:
        # Any numbers, so that reading cards does not lean on the equation.
        values = rng.choice(101, size=len(cards), replace=False).tolist()
        keep = int(rng.integers(len(cards)))
        if equation.result not in values:
            values[keep] = equation.result
        cards = tuple(replace(card, value=int(value)) for card, value in zip(cards, values, strict=True))
    return replace(
        frame,
        split="image_text",
        equation=equation,
        cards=cards,
        board_style=draw_style(rng, part),
        card_style=draw_style(rng, part),
        drawing_seed=int(rng.integers(2**31)),
        subsets=(),
    )
