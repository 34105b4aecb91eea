# SPDX-License-Identifier: Apache-2.0
"""The experiments as data: each row says which recipes it runs and what it changes in them.

All rows of a size share the start, the data, the seeds and the steps; what a row does not name is the full method's.
Rows with the same recipes and changes are trained once, whatever tables they stand in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CELLS", "ROWS", "SIZES", "TABLES", "Cell", "Row", "Table"]


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
    absent: str = ""
    """Why the row cannot be run at this size; empty where it can."""


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
        ),
        Row(name="vlm2vla", label="VLM2VLA: adapters, actions in words", stages=(("vlm2vla", {}),)),
        Row(name="expert", label="scripted expert (privileged): ceiling", policy="expert"),
        Row(name="chance", label="any card at random, never dropped: floor, computed", policy="chance", language=False),
        Row(name="static+dynamic", label="static + dynamic experts", stages=_full({"moe": "static+dynamic"})),
        Row(name="shared+dynamic", label="shared + dynamic experts", stages=_full({"moe": "shared+dynamic"})),
        Row(name="dense", label="dense, same width", stages=_full({"moe": "dense"})),
        Row(
            name="dense_large",
            label="dense, larger (the paper's 7B)",
            absent="a larger dense model needs a pretraining of its own; only one start exists at this size",
        ),
        Row(name="stage1_only", label="stage 1 only", stages=(("stage1", {}),)),
        Row(name="stage2_only", label="stage 2 only", stages=(("stage2", {"moe": "dynamic"}),)),
        Row(name="experts_6_3", label="6 experts, top 3", stages=_full({"experts": 6, "top_k": 3})),
        Row(name="experts_4_2", label="4 experts, top 2", stages=_full({"experts": 4, "top_k": 2})),
        Row(name="inject_all", label="reasoning in all layers", stages=_full({"conditioning": "all"})),
        Row(name="inject_former", label="reasoning in the former half", stages=_full({"conditioning": "former_half"})),
        Row(
            name="no_module",
            label="without the reasoning-following module (FiLM)",
            stages=_full({"conditioning": "film"}),
        ),
        Row(name="frozen", label="language model frozen from the start", stages=_full({"freeze": "backbone"})),
    )
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: its rows, the cells of each, and the row that the others are compared with."""

    name: str
    title: str
    rows: tuple[str, ...]
    cells: tuple[str, ...] = ("open_world",)
    reference: str = "full"
    claims: tuple[str, ...] = field(default=())
    """Rows that the paper finds below the reference, in the last cell."""
    questions: int = 0
    """Questions that each row and what it started from answer, for retention; 0 for none."""
    decisions: int = 0
    """Scenes over which the time of a decision is measured; 0 for none."""


TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table(
            name="table1",
            title="Math matching against other systems",
            rows=("full", "dense_film", "chatvla1", "diffusion_policy", "expert", "chance"),
            cells=("in_domain", "open_world"),
            claims=("dense_film", "chatvla1", "diffusion_policy"),
        ),
        Table(
            name="table3",
            title="Kind of mixture",
            rows=("full", "static+dynamic", "shared+dynamic", "dense", "dense_large"),
            claims=("static+dynamic", "shared+dynamic", "dense"),
        ),
        Table(
            name="table4",
            title="Training stages",
            rows=("full", "stage1_only", "stage2_only"),
            claims=("stage1_only", "stage2_only"),
        ),
        Table(
            name="table5",
            title="Number of experts and top-k",
            rows=("full", "experts_6_3", "experts_4_2"),
            claims=("experts_6_3", "experts_4_2"),
        ),
        Table(
            name="table6",
            title="Where the reasoning enters the action expert",
            rows=("full", "inject_all", "inject_former", "no_module"),
            claims=("inject_all", "inject_former", "no_module"),
        ),
        Table(
            name="swap",
            title="Cards swapped against the same scenes",
            rows=("full", "no_module"),
            cells=("in_domain", "in_domain_swapped"),
            claims=("no_module",),
        ),
        Table(
            name="frozen",
            title="Language model frozen from the start",
            rows=("full", "frozen"),
            claims=("frozen",),
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
