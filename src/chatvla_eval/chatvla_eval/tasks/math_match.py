# SPDX-License-Identifier: Apache-2.0
"""Score the math-matching bench as the paper does: OCR of 4, math of 2 (ChatVLA-2, section 4.1, evaluation metrics).

OCR: 1 point for the handwritten numbers, 1 point for all card values with their positions, 2 points for the operator.
Math: 1 point for the right answer, 1 point for choosing the right card.
Read from the reasoning text alone; what the arm did is scored by the object poses (SceneTruth.success).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from chatvla_control.scene import SceneObject, SceneTruth
from chatvla_eval.reasoning_text import CardChoice, ParsedReasoning, parse_reasoning
from chatvla_eval.tasks.base import ScoredReasoning

__all__ = ["MathMatch", "operator_and_operands", "places_in_order"]

_EQUATION = re.compile(r"\s*(\d{1,6})\s*([+\-x×*−])\s*(\d{1,6})\s*")
_OPERATORS = {"×": "x", "*": "x", "−": "-"}
_PLACES = ("far left", "left", "middle", "right", "far right")


class MathMatch:
    """The math-matching bench's measures and scores."""

    name = "math_match"
    measures: Mapping[str, int] = MappingProxyType({"ocr": 4, "math": 2})
    splits: tuple[str, ...] = ("in_domain", "open_world", "held_out")
    timeout_s = 40.0
    in_steps = False

    def score(self, text: str, truth: SceneTruth) -> ScoredReasoning:
        """Return the points of the reasoning `text` in the scene `truth`."""
        parsed = parse_reasoning(text)
        left, operator, right = operator_and_operands(truth.equation)
        cards = places_in_order(truth)
        parts = {
            "numbers": int(parsed.operands == (left, right)),
            "cards": int(_cards_right(parsed, cards)),
            "operator": 2 * int(parsed.operator == operator),
            "answer": int(parsed.answer is not None and str(parsed.answer) == truth.answer),
            "choice": int(_choice_right(parsed.choice, cards, truth.target)),
        }
        ocr = parts["numbers"] + parts["cards"] + parts["operator"]
        return ScoredReasoning(
            measures={"ocr": ocr, "math": parts["answer"] + parts["choice"]},
            parts=parts,
            answer="" if parsed.answer is None else str(parsed.answer),
            perceived=ocr == self.measures["ocr"],
            computed=bool(parts["answer"]),
            chosen=bool(parts["choice"]),
            choice=_chosen_card(parsed.choice, cards),
        )

    def outcome(self, truth: SceneTruth) -> Mapping[str, int]:
        """Return nothing: what was done is the trial's success."""
        return {}

    def describe(self, truth: SceneTruth) -> dict[str, Any]:
        """Return equation, right answer and cards with places, left to right."""
        cards = [{"place": card.place, "value": card.label} for card in places_in_order(truth)]
        return {"equation": truth.equation, "right_answer": truth.answer, "cards": cards}


def operator_and_operands(equation: str) -> tuple[int, str, int]:
    """Return left operand, operator ("+", "-" or "x") and right operand of a bench's equation such as "3 + 4"."""
    found = _EQUATION.fullmatch(equation)
    if found is None:
        raise ValueError(f"the bench's equation {equation!r} is not two numbers with +, - or x between them")
    return int(found[1]), _OPERATORS.get(found[2], found[2]), int(found[3])


def places_in_order(truth: SceneTruth) -> list[SceneObject]:
    """Return the cards of the scene from left to right by the words of their places."""
    cards = [item for item in truth.objects if item.role == "card"]
    return sorted(cards, key=lambda card: _PLACES.index(card.place) if card.place in _PLACES else len(_PLACES))


def _cards_right(parsed: ParsedReasoning, cards: Sequence[SceneObject]) -> bool:
    """Return whether the text gives exactly the scene's cards, each at its place."""
    stated = {(_index_of(place, cards), str(value)) for place, value in parsed.cards}
    return bool(cards) and stated == {(index, card.label) for index, card in enumerate(cards)}


def _choice_right(choice: CardChoice | None, cards: Sequence[SceneObject], target: str) -> bool:
    """Return whether the chosen card is the target; where the text gives place and value, both must be right."""
    index = next((index for index, card in enumerate(cards) if card.name == target), None)
    if choice is None or index is None:
        return False
    by_place = choice.place is None or _index_of(choice.place, cards) == index
    by_value = choice.value is None or str(choice.value) == cards[index].label
    return by_place and by_value


def _chosen_card(choice: CardChoice | None, cards: Sequence[SceneObject]) -> str:
    """Return the name of the one card that place and value of the choice fit, else ""."""
    if choice is None:
        return ""
    fitting = [
        card.name
        for index, card in enumerate(cards)
        if (choice.place is None or _index_of(choice.place, cards) == index)
        and (choice.value is None or str(choice.value) == card.label)
    ]
    return fitting[0] if len(fitting) == 1 else ""


def _index_of(place: str, cards: Sequence[SceneObject]) -> int | None:
    """Return which card, counted from the left, lies at `place`; None when the scene has no such place."""
    if " from " in place:
        rank, _, side = place.partition(" from ")
        index = int(rank) - 1 if side == "left" else len(cards) - int(rank)
        return index if 0 <= index < len(cards) else None
    return next((index for index, card in enumerate(cards) if card.place == place), None)
