# SPDX-License-Identifier: Apache-2.0
"""The tables as data: which rows stand in each, in which cells, and what of it the paper found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from chatvla_tables.paper import PAPER, measure_word
from chatvla_tables.rows import ROWS
from chatvla_tables.sizes import TASKS

__all__ = ["ROUTER", "TABLES", "Claim", "Measure", "Table"]

Measure = Literal["success", "ocr", "math", "recognition", "affordance"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One finding of the paper about a row, against the table's reference."""

    row: str
    measure: Measure = "success"
    kind: Literal["above", "drop"] = "above"
    """above: in the last cell the reference lies above the row. drop: from the first cell to the last the row loses
    more than the reference."""
    text: str
    """The finding with its source."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: its rows, the cells of each, and the row that the others are compared with."""

    name: str
    title: str
    rows: tuple[str, ...]
    cells: tuple[str, ...] = ("open_world",)
    reference: str = "full"
    other_titles: Mapping[str, str] = field(default_factory=dict)
    """By task, where the title is another."""
    paper: str = ""
    """The table whose numbers of the paper stand beside ours; empty for its own."""
    claims: Mapping[str, tuple[Claim, ...]] = field(default_factory=dict)
    """By task: the paper has most of its tables on one."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What a reader must know beside the figures, by task or size; "" for all."""
    questions: int = 0
    """Questions that each row and what it started from answer, for retention; 0 for none."""
    decisions: int = 0
    """Scenes over which the time of a decision is measured; 0 for none."""
    frames: int = 0
    """Frames of the counterfactual replay of each row; 0 for none."""

    def rows_at(self, size: str) -> tuple[str, ...]:
        """Return the names of the rows that are run at `size`."""
        rows = (ROWS[name] for name in self.rows)
        return tuple(row.name for row in rows if row.size in ("", size) and row.task in ("", TASKS[size]))

    def title_on(self, task: str) -> str:
        """Return the title of the table on `task`."""
        return self.other_titles.get(task, self.title)

    def notes_at(self, size: str) -> list[str]:
        """Return what a reader must know at `size`: of all, of its task, of itself."""
        return [self.notes[key] for key in ("", TASKS[size], size) if key in self.notes]


def _above(table: str, source: str, *, task: str = "math_match", without: str = "") -> dict[str, tuple[Claim, ...]]:
    """Return, for `task`, a claim for every open-world number that the paper gives of another row than the full method.

    `source` is where the paper gives them; the row `without` is left out.
    """
    claims: list[Claim] = []
    for (name, row, cell), own in PAPER[task].items():
        if name != table or row in ("full", without) or cell != "open_world":
            continue
        full = PAPER[task][name, "full", cell]
        for measure in get_args(Measure):
            best, less = full.said(measure), own.said(measure)
            if best and less:
                said = f"{measure_word(measure)} {best} with the full method, {less} with {ROWS[row].label}"
                claims.append(Claim(row=row, measure=measure, text=f"{source}: {said}"))
    return {task: tuple(claims)}


_TOYS = _above("table1", "ChatVLA-2, Table 2", task="toy_placement")
_BASELINES = (
    'The authors say that their baselines "were fine-tuned on robotic data of our tasks" (OpenReview, answer to Q1 on '
    "fine-tuned versions), not whether with image-text data beside it: DexVLA's numbers stand beside both rows with "
    "FiLM, the one with the full method's image-text data and the one without."
)
_KEYFRAME = (
    "At this size the action expert guesses a keyframe from the first and the last of its layers' conditions and acts "
    "with it in hand: by that way the reasoning reaches the chunk in every row, wherever it is injected."
)
_BARE = (
    f"{_KEYFRAME} Rows without keyframe (and without the linear way past the layers) have the layers' modulation "
    "alone, as the paper's model."
)
_STEPS = "Rows of one stage train for as many optimiser steps as the full method's stages together."
_ALONE = (
    'The authors\' "stage 2 only" trains on robot data alone with nothing frozen (OpenReview, answer to Q3): their '
    "numbers stand at that row. The row with the language model frozen is stage 2 as the method runs it, from the "
    "start; the paper's number for a frozen one stands in the table `frozen`."
)
_PLACES = (
    "In the authors' swap equation and place of the right card were seen in training, distractors and the place after "
    "the swap were not (OpenReview): a remembered place would fail. Here all scenes are new and places are drawn, in "
    "the demonstrations too, so there is none to remember; the swap asks whether the arms follow what is seen now."
)
TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table(
            name="table1",
            title="Math matching against other systems",
            other_titles={"toy_placement": "Toy placement against other systems, the paper's Table 2"},
            rows=("full", "dense_film", "dense_film_robot", "chatvla1", "diffusion_policy", "expert", "chance"),
            cells=("in_domain", "open_world"),
            claims=_above("table1", "ChatVLA-2, Table 1") | _TOYS,
            notes={"math_match": _BASELINES},
        ),
        Table(
            name="table3",
            title="Kind of mixture",
            rows=("full", "static+dynamic", "shared+dynamic", "dense", "dense_large"),
            claims=_above("table3", "ChatVLA-2, Table 3"),
        ),
        Table(
            name="table4",
            title="Training stages",
            rows=("full", "stage1_only", "stage2_only", "robot_only"),
            claims=_above("table4", "ChatVLA-2, Table 4"),
            notes={"math_match": f"{_STEPS} {_ALONE}", "toy_placement": _STEPS},
        ),
        Table(
            name="table5",
            title="Number of experts and top-k",
            rows=("full", "experts_6_3", "experts_4_2"),
            claims=_above("table5", "ChatVLA-2, Table 5"),
        ),
        Table(
            name="table6",
            title="Where the reasoning enters the action expert",
            rows=("full", "inject_all", "inject_former", "no_module", "latter_bare", "no_module_bare"),
            claims=_above("table6", "ChatVLA-2, Table 6"),
            notes={"tiny": _BARE, "tiny_toys": _KEYFRAME},
        ),
        Table(
            name="swap",
            title="Cards swapped against the same scenes",
            other_titles={"toy_placement": "The toy and another swapped against the same scenes"},
            rows=("full", "no_module", "latter_bare", "no_module_bare"),
            cells=("in_domain", "in_domain_swapped"),
            claims={
                "math_match": (
                    Claim(
                        row="no_module",
                        kind="drop",
                        text="OpenReview: with the cards swapped, success falls from 12/13 to 10/13 with the "
                        "reasoning-following module, from 11/13 to 2/13 without it",
                    ),
                )
            },
            notes={"math_match": _PLACES, "tiny": _BARE, "tiny_toys": _KEYFRAME},
            frames=40,
        ),
        Table(
            name="frozen",
            title="Language model frozen from the start",
            rows=("full", "frozen"),
            claims=_above("frozen", "OpenReview"),
        ),
        Table(
            name="systems",
            title="Ways of keeping a vision-language model's knowledge",
            rows=("full", "chatvla1", "vlm2vla", "dense_film", "diffusion_policy", "expert", "chance"),
            cells=("in_domain", "open_world"),
            paper="table1",
            claims=_above("table1", "ChatVLA-2, Table 1", without="dense_film_robot") | _TOYS,
            questions=200,
            decisions=5,
        ),
    )
}
ROUTER = "router"
"""The one experiment that is no table of rows: expert traffic of the full method before and after training."""
