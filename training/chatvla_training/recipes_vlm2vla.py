# SPDX-License-Identifier: Apache-2.0
"""Recipes of VLM2VLA: adapters on a VLM, robot data as language, nothing else (VLM2VLA, appendix E, Table 4).

AdamW 5e-5, linear decay, betas .9/.999, bf16, effective batch 8, one epoch, LoRA r 16, alpha 32 on q, k, v, o, up,
down, gate. One epoch is as many steps as the data has questions by eight: give --steps; the default is for 64k.
The data comes from ./chatvla relabel. The tiny recipe asks in short prompts and tells the tool's place: a departure,
for a vocabulary of 512 tokens and a model of three million weights.
"""

from __future__ import annotations

from dataclasses import replace

from chatvla_training.recipe import Recipe

__all__ = ["VLM2VLA_RECIPES"]

VLM2VLA = Recipe(
    name="vlm2vla",
    summary="VLM2VLA: adapters on a VLM, robot data relabelled as language, one epoch",
    stage="language",
    system="vlm2vla",
    init="google/gemma-3-12b-it",
    lora_rank=16,
    lora_alpha=32,
    lora_targets="q_proj,k_proj,v_proj,o_proj,up_proj,down_proj,gate_proj",
    ratio=(0, 1),
    steps=8_000,
    batch=8,
    micro_batch=1,
    lr=5e-5,
    lr_end=0.0,
    schedule="linear",
    warmup=0,
    checkpointing=True,
)
TINY = replace(
    VLM2VLA,
    name="tiny_vlm2vla",
    summary="tiny VLM2VLA: adapters on the tiny pretrained VLM",
    init="runs/tiny/tiny_settle/policy",
    data="data/math_match_language",
    prompts="short",
    tell_pose=True,
    lora_targets="q_proj,k_proj,v_proj,o_proj,up_proj,down_proj,gate_proj,qkv,proj,fc1,fc2",
    steps=4_000,
    batch=24,
    micro_batch=24,
    lr=2e-3,
    warmup=50,
    beta2=0.98,
    validate_every=500,
    checkpoint_every=500,
    checkpointing=False,
)

VLM2VLA_RECIPES: tuple[Recipe, ...] = (
    VLM2VLA,
    replace(VLM2VLA, name="vlm2vla_qwen", summary="VLM2VLA on a Qwen VL model", init="Qwen/Qwen3-VL-8B-Instruct"),
    TINY,
    *(
        replace(recipe, name=f"{recipe.name}_{short}", summary=f"{recipe.summary}; {words}", variant=variant)
        for recipe in (VLM2VLA, TINY)
        for short, variant, words in (
            ("at", "action_tokens", "ablation: digits as rare tokens"),
            ("nr", "no_reasoning", "ablation: no subtasks, no plans"),
        )
    ),
)
