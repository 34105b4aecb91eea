# SPDX-License-Identifier: Apache-2.0
"""The numbers of the papers' tables, to stand beside ours. All are from real robots; ours are from simulation.

Success is k of n trials. Math bench: OCR of 4, math of 2; in-domain the paper gives one reasoning score of 6, not its
parts. Toys: recognition is the mean over target and reference, where ours is their sum; affordance is of 1.
(ChatVLA-2, Tables 1 to 6; OpenReview: frozen language model, swapped cards, and that "stage 2 only" in Table 4 trains
on robot data alone with nothing frozen: our row robot_only)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chatvla_eval.tasks import task_by_name

__all__ = ["PAPER", "PAPER_TASKS", "PaperCell", "PaperTask", "measure_word", "points_of"]

_WORDS = {"ocr": "OCR"}
_WRITTEN = {"reasoning": "{:.1f} of 6", "recognition": "{:.2f} of 1"}
"""How the paper's number of a measure is written where it is no plain one of our scale."""


def measure_word(measure: str) -> str:
    """Return a measure's name as texts write it."""
    return _WORDS.get(measure, measure)


@dataclass(frozen=True, kw_only=True)
class PaperTask:
    """What the paper says of all trials of one task."""

    trials: Mapping[str, int]
    """By split."""
    total: str = ""
    """Its name for the sum of all measures; empty where it adds up none."""
    note: str = ""
    """What a reader must know of its numbers."""


PAPER_TASKS: Mapping[str, PaperTask] = {
    "math_match": PaperTask(trials={"in_domain": 13, "open_world": 52}, total="reasoning"),
    "toy_placement": PaperTask(
        trials={"in_domain": 67, "open_world": 156},
        note="its recognition is the mean over target and reference, half of ours",
    ),
}


def points_of(task: str) -> dict[str, int]:
    """Return the most points of each measure of `task`, with their sum where the paper gives one, in order of tables.

    Raises UnknownTaskError for a task that does not exist, KeyError for one that the paper does not have.
    """
    measures = dict(task_by_name(task).measures)
    total = PAPER_TASKS[task].total
    return measures | ({total: sum(measures.values())} if total else {})


@dataclass(frozen=True, kw_only=True)
class PaperCell:
    """One cell of the paper, on the paper's own scales; None where it gives no number."""

    success: tuple[int, int] | None = None
    ocr: float | None = None
    math: float | None = None
    reasoning: float | None = None
    recognition: float | None = None
    affordance: float | None = None

    def said(self, measure: str) -> str:
        """Return the number of a measure as the paper writes it; empty where it gives none."""
        value = getattr(self, measure)
        if value is None:
            return ""
        return f"{value[0]}/{value[1]}" if measure == "success" else _WRITTEN.get(measure, "{:.2f}").format(value)

    def line(self, measures: Iterable[str]) -> str:
        """Return success and those of `measures` that the paper gives, as a page says them."""
        points = [f"{measure_word(name)} {self.said(name)}" for name in measures if self.said(name)]
        return ", ".join([*([self.said("success")] if self.success else []), *points])


FULL = PaperCell(success=(43, 52), ocr=3.58, math=1.73)
_MATH: dict[tuple[str, str, str], PaperCell] = {
    ("table1", "full", "in_domain"): PaperCell(success=(11, 13), reasoning=6.0),
    ("table1", "full", "open_world"): FULL,
    ("table1", "dense_film", "in_domain"): PaperCell(success=(12, 13), reasoning=5.2),
    ("table1", "dense_film", "open_world"): PaperCell(success=(10, 52), ocr=0.21, math=0.06),
    ("table1", "dense_film_robot", "in_domain"): PaperCell(success=(12, 13), reasoning=5.2),
    ("table1", "dense_film_robot", "open_world"): PaperCell(success=(10, 52), ocr=0.21, math=0.06),
    ("table1", "chatvla1", "in_domain"): PaperCell(success=(10, 13), reasoning=5.8),
    ("table1", "chatvla1", "open_world"): PaperCell(success=(4, 52), ocr=1.08, math=0.42),
    ("table1", "diffusion_policy", "in_domain"): PaperCell(success=(7, 13)),
    ("table1", "diffusion_policy", "open_world"): PaperCell(success=(3, 52)),
    ("table3", "full", "open_world"): FULL,
    ("table3", "static+dynamic", "open_world"): PaperCell(success=(11, 52), ocr=2.38, math=0.92),
    ("table3", "shared+dynamic", "open_world"): PaperCell(success=(25, 52), ocr=3.07, math=1.12),
    ("table3", "dense", "open_world"): PaperCell(success=(2, 52), ocr=0.04, math=0.0),
    ("table3", "dense_large", "open_world"): PaperCell(success=(8, 52), ocr=0.08, math=0.0),
    ("table4", "full", "open_world"): FULL,
    ("table4", "stage1_only", "open_world"): PaperCell(success=(12, 52), ocr=3.20, math=1.33),
    ("table4", "robot_only", "open_world"): PaperCell(success=(3, 52), ocr=0.15, math=0.04),
    ("table5", "full", "open_world"): PaperCell(ocr=3.58, math=1.73),
    ("table5", "experts_6_3", "open_world"): PaperCell(ocr=2.42, math=1.26),
    ("table5", "experts_4_2", "open_world"): PaperCell(ocr=1.87, math=0.94),
    ("table6", "full", "open_world"): FULL,
    ("table6", "inject_all", "open_world"): PaperCell(success=(36, 52)),
    ("table6", "inject_former", "open_world"): PaperCell(success=(22, 52)),
    ("frozen", "full", "open_world"): FULL,
    ("frozen", "frozen", "open_world"): PaperCell(success=(15, 52), ocr=2.77, math=0.98),
    ("swap", "full", "in_domain"): PaperCell(success=(12, 13)),
    ("swap", "full", "in_domain_swapped"): PaperCell(success=(10, 13)),
    ("swap", "no_module", "in_domain"): PaperCell(success=(11, 13)),
    ("swap", "no_module", "in_domain_swapped"): PaperCell(success=(2, 13)),
}
_TOYS: dict[tuple[str, str, str], PaperCell] = {
    ("table1", "full", "in_domain"): PaperCell(success=(61, 67), recognition=1.0, affordance=0.99),
    ("table1", "full", "open_world"): PaperCell(success=(127, 156), recognition=0.94, affordance=0.88),
    ("table1", "dense_film", "in_domain"): PaperCell(success=(63, 67), recognition=1.0, affordance=0.97),
    ("table1", "dense_film", "open_world"): PaperCell(success=(36, 156), recognition=0.23, affordance=0.12),
    ("table1", "chatvla1", "in_domain"): PaperCell(success=(60, 67), recognition=1.0, affordance=0.97),
    ("table1", "chatvla1", "open_world"): PaperCell(success=(22, 156), recognition=0.71, affordance=0.35),
    ("table1", "diffusion_policy", "in_domain"): PaperCell(success=(52, 67)),
    ("table1", "diffusion_policy", "open_world"): PaperCell(success=(17, 156)),
}
"""Our table 1 with toys is the paper's Table 2; its other tables are of the math bench alone."""
PAPER: Mapping[str, Mapping[tuple[str, str, str], PaperCell]] = {"math_match": _MATH, "toy_placement": _TOYS}
"""By task; then by table, row and cell."""
