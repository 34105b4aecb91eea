# SPDX-License-Identifier: Apache-2.0
"""The experiments as data: each row says which recipes it runs and what it changes in them.

All rows of a size share the start, the data, the seeds and the steps; what a row does not name is the full method's. Of
the robot data, VLM2VLA's language leaves out episodes in which the arm was pushed.
Rows with the same recipes and changes are trained once, whatever tables they stand in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["CELLS", "EVAL_SEED", "ROWS", "Cell", "Row"]

EVAL_SEED = 400
"""Seed of every evaluation: its scenes are in no demonstration, and nothing was tuned or shown on them."""
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
    """One evaluation of a row: which trials. Their number is the paper's for the task (paper.py)."""

    name: str
    split: str
    swap: bool = False


CELLS: Mapping[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell(name="in_domain", split="in_domain"),
        Cell(name="open_world", split="open_world"),
        Cell(name="in_domain_swapped", split="in_domain", swap=True),
    )
}


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
    """False where the system writes no text: then measures of texts have no meaning."""
    takes: tuple[str, ...] = ()
    """Fields that its first stage takes from the size's stage 1, which it does not run."""
    budget: Literal["recipes", "steps", "samples"] = "recipes"
    """Steps of a row with one stage: its recipe's own; as many as the full method's stages together; or as many as see
    the full method's number of samples."""

    size: str = ""
    """The only size at which the row differs from another; empty for all."""
    task: str = ""
    """The only task on which the row has a meaning; empty for all."""

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
            name="dense_film_robot",
            label="dense + FiLM on robot data alone",
            stages=(("dense_film1", {"ratio": (0, 1), "image_text": ""}), ("dense_film2", {})),
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
        Row(
            name="vlm2vla",
            label="VLM2VLA: adapters, actions in words",
            stages=(("vlm2vla", {}), ("vlm2vla_lists", {})),
        ),
        Row(name="expert", label="scripted expert (privileged): ceiling", policy="expert"),
        Row(
            name="chance",
            label="any card at random, never dropped: floor, computed",
            policy="chance",
            language=False,
            # One of the cards is right; a toy goes to a place on the table, of which there is no number.
            task="math_match",
        ),
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
