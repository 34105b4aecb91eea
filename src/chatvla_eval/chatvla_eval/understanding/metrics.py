# SPDX-License-Identifier: Apache-2.0
"""Score one answer against the reference answers, with the benchmarks' own metrics; every score lies in 0..1.

exact     the same text but for case and outer spaces
vqa       VQA accuracy: min(1, matches among the other people's answers / 3), mean over leaving each person out
          (S. Antol et al., ICCV 2015); TextVQA, VQAv2
anls      average normalised Levenshtein similarity, 0 below 0.5, the best reference counts
          (A. F. Biten et al., ICCV 2019); DocVQA, InfoVQA
relaxed   numbers within 5%, else the same text (A. Masry et al., ChartQA, ACL Findings 2022)
choice    the letter of a multiple-choice question: the one that "answer" names, that the text begins with, that
          "option" names, or the only one in it; an article ("A dog") and the word I name none
ocrbench  a reference is part of the answer, but for case; formulas but for spaces (Y. Liu et al., OCRBench, 2024)
mtvqa     a reference is part of the answer, but for case and full stops (J. Tang et al., MTVQA, ACL Findings 2025)
yes_no    the answer says yes or no and not both, and that is right; MME, HallusionBench
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from chatvla_eval.understanding.vqa_words import normal_answer, without_punctuation

__all__ = [
    "METRICS",
    "anls",
    "choice",
    "exact",
    "mtvqa",
    "ocrbench",
    "relaxed",
    "score_of",
    "vqa",
    "yes_no",
]

ANLS_THRESHOLD = 0.5
RELAXED_SHARE = 0.05
AGREEING_PEOPLE = 3
_NO_ARTICLE = r"(?!(?<=A) (?!(?:and|as|because|is|or|since)\b)[a-z])"
"""After a letter: it is no A before a noun or adjective."""


def exact(answer: str, references: Sequence[str]) -> float:
    """Return 1 when the answer is one of the references, but for case and outer spaces."""
    return float(answer.strip().lower() in {reference.strip().lower() for reference in references})


def vqa(answer: str, references: Sequence[str]) -> float:
    """Return the VQA accuracy; with one reference, whether it is the same after normalisation."""
    given = normal_answer(answer)
    people = [normal_answer(reference) for reference in references]
    if len(people) < 2:
        return float(given in people)
    matches = [sum(other == given for other in (*people[:k], *people[k + 1 :])) for k in range(len(people))]
    return sum(min(1.0, count / AGREEING_PEOPLE) for count in matches) / len(people)


def anls(answer: str, references: Sequence[str]) -> float:
    """Return the similarity to the nearest reference, 0 below ANLS_THRESHOLD, as DocVQA's own script computes it."""
    best = max((_similarity(answer, reference) for reference in references), default=0.0)
    return best if best >= ANLS_THRESHOLD else 0.0


def relaxed(answer: str, references: Sequence[str]) -> float:
    """Return 1 when the answer is near enough to a reference: a number within 5%, or the same text."""
    return float(any(_near(answer.strip(), reference) for reference in references))


def choice(answer: str, references: Sequence[str], options: Sequence[str] = tuple("ABCDEFGHIJ")) -> float:
    """Return 1 when the answer names the right one of the letters `options` (see `_letter`)."""
    letter = _letter(answer.strip(), "".join(options))
    return float(letter != "" and letter in {reference.strip().upper() for reference in references})


def ocrbench(answer: str, references: Sequence[str]) -> float:
    """Return 1 when a reference is part of the answer, but for case."""
    given = answer.lower().replace("\n", " ")
    return float(any(reference.lower().strip().replace("\n", " ") in given for reference in references))


def mtvqa(answer: str, references: Sequence[str]) -> float:
    """Return 1 when a reference is part of the answer, but for case and full stops."""
    given = answer.strip().lower().replace(".", "")
    return float(any(reference.strip().lower().replace(".", "") in given for reference in references))


def yes_no(answer: str, references: Sequence[str]) -> float:
    """Return 1 when the answer says yes where a reference does, or no; both or neither is wrong.

    Raises ValueError for a reference that is not yes or no.
    """
    wanted = {_said(reference) for reference in references}
    if "" in wanted:
        raise ValueError(f"the metric yes_no needs references yes or no, got {list(references)}; give --metric")
    return float(_said(answer) in wanted)


METRICS: Mapping[str, Callable[[str, Sequence[str]], float]] = {
    "exact": exact,
    "vqa": vqa,
    "anls": anls,
    "relaxed": relaxed,
    "choice": choice,
    "ocrbench": ocrbench,
    "mtvqa": mtvqa,
    "yes_no": yes_no,
}
FORMULAS = "Handwritten Mathematical Expression Recognition"
"""OCRBench's category of questions whose answers are compared without their spaces, case and all."""


def score_of(
    metric: str, answer: str, references: Sequence[str], *, category: str = "", options: Sequence[str] = ()
) -> float:
    """Return the score by the name of a metric.

    `category` is what the benchmark calls the kind of question, `options` the letters of a multiple-choice question.
    """
    if metric == "choice" and options:
        return choice(answer, references, options)
    if metric == "ocrbench" and category == FORMULAS:
        return float(any(_joined(reference) in _joined(answer) for reference in references))
    return METRICS[metric](answer, references)


def _joined(text: str) -> str:
    return text.strip().replace("\n", "").replace(" ", "")


def _letter(answer: str, letters: str) -> str:
    """Return the letter that an answer names; empty where it names none, or several without saying which."""
    one = rf"([{letters}])(?![\w'\u2019])"
    for pattern in (
        rf"\b(?i:answer)\b\W*(?:(?i:is|would be|should be)\b\W*)?(?:(?i:option|choice)\b\W*)?{one}{_NO_ARTICLE}",
        rf"\W*{one}(?=\W*$|[.):,]|\n)",
        rf"\b(?i:option|choice)\b\W*(?:(?i:is)\b\W*)?{one}{_NO_ARTICLE}",
    ):
        found = re.match(pattern, answer) if pattern.startswith(r"\W") else re.search(pattern, answer)
        if found:
            return found[1]
    alone = set(re.findall(rf"(?<![\w'\u2019]){one}{_NO_ARTICLE}", answer)) - {"I"}
    return alone.pop() if len(alone) == 1 else ""


def _said(text: str) -> str:
    """Return "yes" or "no" when the text says one of them and not the other, else ""."""
    found = {"yes", "no"} & set(without_punctuation(text.lower()).split())
    return found.pop() if len(found) == 1 else ""


def _similarity(answer: str, reference: str) -> float:
    """Return 1 minus the Levenshtein distance over the longer length."""
    ours, theirs = (" ".join(text.strip().lower().split()) for text in (answer, reference))
    longest = max(len(answer), len(reference))
    return 1.0 if longest == 0 else 1.0 - _distance(ours, theirs) / longest


def _distance(first: str, second: str) -> int:
    """Return the least number of inserted, deleted and replaced letters between two texts."""
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        previous, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (letter != other))
    return row[-1]


def _near(answer: str, reference: str) -> bool:
    given, wanted = _number(answer), _number(reference)
    if given is not None and wanted:
        return abs(given - wanted) / abs(wanted) <= RELAXED_SHARE
    return answer.lower() == reference.lower()


def _number(text: str) -> float | None:
    """Return a text's number, a percentage as its share; None where it is none."""
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None
