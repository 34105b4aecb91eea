# SPDX-License-Identifier: Apache-2.0
"""Ask the same question in varying words, so that the model does not hang on one form of a query."""

from __future__ import annotations

import random
import re

__all__ = ["vary_question"]

SHORT_ANSWER = re.compile(r"\s*\n?Answer the question using a single word or phrase\.?\s*$", re.IGNORECASE)
SHORT_FORMS = (
    "\nAnswer the question using a single word or phrase.",
    "\nUse a single word or phrase.",
    "\nAnswer briefly.",
    " Give a short answer.",
    " One word or phrase is enough.",
)
LEADS = ("", "", "", "Look at the image. ", "Please answer: ", "Given the image: ", "Question: ", "Tell me: ")
CAPTIONS = (
    re.compile(r"^(?:please )?(?:describe|write a (?:short )?caption|provide a (?:brief|short) description)\b", re.I),
    (
        "Describe the image.",
        "What does the image show?",
        "What do you see here?",
        "Give a short description of this picture.",
        "Write a caption for this image.",
    ),
)


def vary_question(question: str, rng: random.Random) -> str:
    """Return one wording of `question`: another lead, another form of the request for brevity."""
    pattern, forms = CAPTIONS
    if pattern.match(question) and len(question) < 80:
        return rng.choice(forms)
    body, short = SHORT_ANSWER.subn("", question)
    return rng.choice(LEADS) + body + (rng.choice(SHORT_FORMS) if short else "")
