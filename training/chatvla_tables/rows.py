# SPDX-License-Identifier: Apache-2.0
"""The experiments as data: each row says which recipes it runs and what it changes in them.

All rows of a size share the start, the data, the seeds and the steps; what a row does not name is the full method's.
Rows with the same recipes and changes are trained once, whatever tables they stand in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chatvla_tables.paper import PAPER

__all__ = [
    "CELLS",
    "EVAL_SEED",
    "RELABEL",
    "ROUTER",
    "ROWS",
    "SIZES",
    "TABLES",
    "Cell",
    "Claim",
    "Measure",
    "Row",
    "Table",
]

EVAL_SEED = 400
"""Seed of every evaluation: its scenes are in no demonstration, and nothing was tuned or shown on them."""
Measure = Literal["success", "ocr", "math"]
_EXPERT_FIELDS = (
    "moe",
    "experts",
    "top_k",
    "balance_weight",
    "z_weight",
    "conditioning",
    "denoising",
    "cameras",
    "horizon",
    "normalisation",
    "relative_actions",
    "action_size",
    "image_width",
    "readings",
)
"""Fields of stage 1 that make mixture, action expert, cameras and scales of the data."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One evaluation of a row: which trials."""

    name: str
    split: str
    trials: int
    swap: bool = False


CELLS: Mapping[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell(name="in_domain", split="in_domain", trials=13),
        Cell(name="open_world", split="open_world", trials=52),
        Cell(name="in_domain_swapped", split="in_domain", trials=13, swap=True),
    )
}
"""Numbers of trials are the paper's."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system: the stages it trains, by name of the size's recipes, with what it changes in each."""

    name: str
    label: str
    stages: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Recipe's role (a key of SIZES[size]) and changed fields, in order; empty for a row that trains nothing."""
    policy: str = ""
    """Policy of a row that trains nothing: "expert", or "chance"."""
    language: bool = True
    """False where the system writes no text: then OCR and math have no meaning."""
    takes: tuple[str, ...] = ()
    """Fields that its first stage takes from the size's stage 1, which it does not run."""
    budget: Literal["recipes", "steps", "samples"] = "recipes"
    """Steps of a row with one stage: its recipe's own; as many as the full method's stages together; or as many as see
    the full method's number of samples."""

    size: str = ""
    """The only size at which the row differs from another; empty for all."""

    @property
    def alone(self) -> bool:
        """Whether its trainings are like no other row's, whatever its stages say."""
        return bool(self.takes) or self.budget != "recipes"


def _full(stage1: Mapping[str, Any] | None = None) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    return (("stage1", stage1 or {}), ("stage2", {}))


ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        Row(name="full", label="ChatVLA-2: dynamic experts 8/2, latter half", stages=_full()),
        Row(
            name="dense_film", label="dense + FiLM (close to DexVLA)", stages=(("dense_film1", {}), ("dense_film2", {}))
        ),
        Row(
            name="chatvla1",
            label="ChatVLA-1: static experts",
            stages=(("chatvla1_1", {}), ("chatvla1_2", {}), ("chatvla1_3", {})),
        ),
        Row(
            name="diffusion_policy",
            label="diffusion policy without language",
            stages=(("diffusion", {}),),
            language=False,
            budget="samples",
        ),
        Row(name="vlm2vla", label="VLM2VLA: adapters, actions in words", stages=(("vlm2vla", {}),)),
        Row(name="expert", label="scripted expert (privileged): ceiling", policy="expert"),
        Row(name="chance", label="any card at random, never dropped: floor, computed", policy="chance", language=False),
        Row(name="static+dynamic", label="static + dynamic experts", stages=_full({"moe": "static+dynamic"})),
        Row(name="shared+dynamic", label="shared + dynamic experts", stages=_full({"moe": "shared+dynamic"})),
        Row(name="dense", label="dense, same width", stages=_full({"moe": "dense"})),
        Row(
            name="dense_large",
            label="dense, larger: 4 experts, all active (the paper's: a 7B)",
            stages=_full({"experts": 4, "top_k": 4}),
        ),
        Row(name="stage1_only", label="stage 1 only", stages=(("stage1", {}),), budget="steps"),
        Row(
            name="stage2_only",
            label="stage 2 only: language model frozen",
            stages=(("stage2", {}),),
            takes=_EXPERT_FIELDS,
            budget="steps",
        ),
        Row(
            name="robot_only",
            label='robot data alone, all trained (the authors\' "stage 2 only")',
            stages=(("stage1", {"ratio": (0, 1), "image_text": ""}),),
            budget="steps",
        ),
        Row(name="experts_6_3", label="6 experts, top 3", stages=_full({"experts": 6, "top_k": 3})),
        Row(name="experts_4_2", label="4 experts, top 2", stages=_full({"experts": 4, "top_k": 2})),
        Row(name="inject_all", label="reasoning in all layers", stages=_full({"conditioning": "all"})),
        Row(name="inject_former", label="reasoning in the former half", stages=_full({"conditioning": "former_half"})),
        Row(
            name="no_module",
            label="without the reasoning-following module (FiLM)",
            stages=_full({"conditioning": "film"}),
        ),
        Row(
            name="latter_bare",
            label="reasoning in the latter half, no keyframe",
            stages=_full({"action_size": "compact_bare"}),
            size="tiny",
        ),
        Row(
            name="no_module_bare",
            label="without the module (FiLM), no keyframe",
            stages=_full({"action_size": "compact_bare", "conditioning": "film"}),
            size="tiny",
        ),
        Row(name="frozen", label="language model frozen from the start", stages=_full({"freeze": "backbone"})),
    )
}


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
    claims: tuple[Claim, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    """What a reader must know beside the figures, by size; "" for all sizes."""
    questions: int = 0
    """Questions that each row and what it started from answer, for retention; 0 for none."""
    decisions: int = 0
    """Scenes over which the time of a decision is measured; 0 for none."""
    frames: int = 0
    """Frames of the counterfactual replay of each row; 0 for none."""

    def rows_at(self, size: str) -> tuple[str, ...]:
        """Return the names of the rows that are run at `size`."""
        return tuple(name for name in self.rows if ROWS[name].size in ("", size))


_NAMES: Mapping[Measure, str] = {"success": "success", "ocr": "OCR", "math": "math"}


def _above(table: str, source: str) -> tuple[Claim, ...]:
    """Return a claim for every open-world number that the paper gives of another row than the full method."""
    claims: list[Claim] = []
    for (name, row, cell), own in PAPER.items():
        if name != table or row == "full" or cell != "open_world":
            continue
        full = PAPER[name, "full", cell]
        for measure, word in _NAMES.items():
            best, less = full.said(measure), own.said(measure)
            if best and less:
                text = f"{source}: {word} {best} with the full method, {less} with {ROWS[row].label}"
                claims.append(Claim(row=row, measure=measure, text=text))
    return tuple(claims)


_KEYFRAME = (
    "At this size the action expert guesses a keyframe from the first and the last of its layers' conditions and acts "
    "with it in hand: by that way the reasoning reaches the chunk in every row, wherever it is injected. Rows without "
    "keyframe (and without the linear way past the layers) have the layers' modulation alone, as the paper's model."
)
TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table(
            name="table1",
            title="Math matching against other systems",
            rows=("full", "dense_film", "chatvla1", "diffusion_policy", "expert", "chance"),
            cells=("in_domain", "open_world"),
            claims=_above("table1", "ChatVLA-2, Table 1"),
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
            notes={
                "": "Rows of one stage train for as many optimiser steps as the full method's stages together. The "
                'authors\' "stage 2 only" trains on robot data alone with nothing frozen (OpenReview, answer to Q3): '
                "their numbers stand at that row. The row with the language model frozen is stage 2 as the method runs "
                "it, from the start; the paper's number for a frozen one stands in the table `frozen`."
            },
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
            notes={"tiny": _KEYFRAME},
        ),
        Table(
            name="swap",
            title="Cards swapped against the same scenes",
            rows=("full", "no_module", "latter_bare", "no_module_bare"),
            cells=("in_domain", "in_domain_swapped"),
            claims=(
                Claim(
                    row="no_module",
                    kind="drop",
                    text="OpenReview: with the cards swapped, success falls from 12/13 to 10/13 with the "
                    "reasoning-following module, from 11/13 to 2/13 without it",
                ),
            ),
            notes={"tiny": _KEYFRAME},
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
            questions=200,
            decisions=5,
        ),
    )
}
RELABEL: Mapping[str, tuple[str, ...]] = {"tiny": ("--step", "1", "--limit", "1")}
"""How robot data is written as language at a size, if not as the recipe of relabelling says: one action a part."""
ROUTER = "router"
"""The one experiment that is no table of rows: expert traffic of the full method before and after training."""

SIZES: Mapping[str, Mapping[str, str]] = {
    "tiny": {
        "stage1": "tiny_stage1",
        "stage2": "tiny_stage2",
        "dense_film1": "tiny_dense_film_stage1",
        "dense_film2": "tiny_dense_film_stage2",
        "chatvla1_1": "tiny_chatvla1_stage1",
        "chatvla1_2": "tiny_chatvla1_stage2",
        "chatvla1_3": "tiny_chatvla1_head",
        "diffusion": "tiny_diffusion_policy",
        "vlm2vla": "tiny_vlm2vla",
    },
    "qwen2vl_2b": {
        "stage1": "stage1",
        "stage2": "stage2",
        "dense_film1": "dense_film_stage1",
        "dense_film2": "dense_film_stage2",
        "chatvla1_1": "chatvla1_stage1",
        "chatvla1_2": "chatvla1_stage2",
        "diffusion": "diffusion_policy",
        "vlm2vla": "vlm2vla_qwen",
    },
}
"""Recipes by role for each size; a role that a size lacks is left out of the row's stages."""
