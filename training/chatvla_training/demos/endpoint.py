# SPDX-License-Identifier: Apache-2.0
"""Reword reasoning by a language model behind an OpenAI-compatible endpoint, and keep only what still says the same."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections import Counter

__all__ = ["EndpointError", "EndpointParaphraser", "same_claims"]

LARGEST_ANSWER = 2**20
"""Bytes of an answer that are read at most."""
REQUEST = (
    "Reword the following thought of a robot. Keep every number, every equation, every place word (left, middle, "
    "right, far left, far right) with the card it belongs to, and the final choice. Answer with the reworded text "
    "only.\n\n{text}"
)


class EndpointError(RuntimeError):
    """The endpoint can't be reached or does not answer as agreed."""


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
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("CHATVLA_PARAPHRASE_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                said = json.loads(self._body(answer))["choices"][0]["message"]["content"].strip()
        except (urllib.error.URLError, OSError) as error:
            raise EndpointError(
                f"no answer from {self._url}: {error}; leave --paraphrase-url out to use the grammar"
            ) from error
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise EndpointError(
                f"{self._url} did not answer as an OpenAI-compatible chat endpoint: {error!r}"
            ) from error
        same = same_claims(text, said)
        self.kept["used" if same else "refused"] += 1
        return said if same else text

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        """Return the answer's body. Raises OSError when it takes longer than the time-out, or more than is allowed.

        The socket's own time-out counts from byte to byte only.
        """
        end_s, body = time.monotonic() + self._timeout_s, b""
        while part := answer.read1(65536):
            body += part
            if time.monotonic() > end_s:
                raise OSError(f"the answer took longer than {self._timeout_s:g} s")
            if len(body) > LARGEST_ANSWER:
                raise OSError(f"the answer has more than {LARGEST_ANSWER} bytes")
        return body


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
