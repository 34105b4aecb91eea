# SPDX-License-Identifier: Apache-2.0
"""Reword reasoning by a language model behind an OpenAI-compatible endpoint, and keep only what still says the same."""

from __future__ import annotations

import os
import re
from collections import Counter

from chatvla_policy.endpoint_answer import EndpointError, chat_answer

__all__ = ["EndpointError", "EndpointParaphraser", "same_claims"]

REQUEST = (
    "Reword the following thought of a robot. Keep every number, every equation, every place word (left, middle, "
    "right, far left, far right) with the card it belongs to, and the final choice. Answer with the reworded text "
    "only.\n\n{text}"
)


class EndpointParaphraser:
    """A paraphraser that asks a server; the text itself is kept whenever the answer changes a claim."""

    def __init__(self, url: str, model: str, *, timeout_s: float = 30.0) -> None:
        """Ask `url` (such as http://host:8000/v1); a key is read from the variable CHATVLA_PARAPHRASE_KEY."""
        self._url = url.rstrip("/") + "/chat/completions"
        self._model, self._timeout_s = model, timeout_s
        self.kept: Counter[str] = Counter()
        """How many answers were "used" and how many "refused"."""

    def __call__(self, text: str, seed: int) -> str:
        """Return another wording of `text`. Raises EndpointError when the server can't be used."""
        body = {
            "model": self._model,
            "seed": seed,
            "temperature": 0.9,
            "messages": [{"role": "user", "content": REQUEST.format(text=text)}],
        }
        key = os.environ.get("CHATVLA_PARAPHRASE_KEY", "")
        try:
            said = chat_answer(self._url, body, key=key, timeout_s=self._timeout_s)
        except EndpointError as error:
            raise EndpointError(f"{error}; leave --paraphrase-url out to use the grammar") from error
        same = same_claims(text, said)
        self.kept["used" if same else "refused"] += 1
        return said if same else text


def same_claims(before: str, after: str) -> bool:
    """Return whether two wordings name the same numbers and operators, and end on the same place."""
    numbers = [Counter(re.findall(r"\d+", text)) for text in (before, after)]
    operators = [set(re.findall(r"\d\s*([-+x×])\s*\d", text)) for text in (before, after)]
    places = [re.findall(r"\b((?:far )?(?:left|right)|middle)\b", text.lower()) for text in (before, after)]
    return (
        set(numbers[0]) == set(numbers[1])
        and operators[0] <= operators[1]
        and set(places[0]) == set(places[1])
        and bool(places[1])
        and places[0][-1] == places[1][-1]
    )
