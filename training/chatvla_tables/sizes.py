# SPDX-License-Identifier: Apache-2.0
"""The sizes that tables are run at: which recipe plays which part, on which task, and what follows from the task."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DEFAULT_SIZE", "QUESTIONS", "RELABEL", "SIZES", "TASKS"]

DEFAULT_SIZE = "tiny"
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
        "vlm2vla_lists": "tiny_vlm2vla_lists",
    },
    "tiny_toys": {
        "stage1": "tiny_toys_stage1",
        "stage2": "tiny_toys_stage2",
        "dense_film1": "tiny_toys_dense_film_stage1",
        "dense_film2": "tiny_toys_dense_film_stage2",
        "chatvla1_1": "tiny_toys_chatvla1_stage1",
        "chatvla1_2": "tiny_toys_chatvla1_stage2",
        "chatvla1_3": "tiny_toys_chatvla1_head",
        "diffusion": "tiny_toys_diffusion_policy",
        "vlm2vla": "tiny_toys_vlm2vla",
        "vlm2vla_lists": "tiny_toys_vlm2vla_lists",
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
TASKS: Mapping[str, str] = {"tiny": "math_match", "tiny_toys": "toy_placement", "qwen2vl_2b": "math_match"}
"""The task of each size's data and trials."""
_SHORT = ("--step", "1", "--limit", "1", "--decimals", "2", "--where")
RELABEL: Mapping[str, tuple[str, ...]] = {
    "tiny": _SHORT,
    "tiny_toys": _SHORT,
    "qwen2vl_2b": ("--starts", "1"),
}
"""How robot data is written as language at a size, if not as the recipe of relabelling says."""
QUESTIONS: Mapping[str, str] = {"math_match": "all", "toy_placement": "toys_all"}
"""The image-text source that questions about each task are drawn from."""
