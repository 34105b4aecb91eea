# SPDX-License-Identifier: Apache-2.0
"""Recipes of VLM2VLA: adapters on a VLM, robot data as language, nothing else (VLM2VLA, appendix E, Table 4).

AdamW 5e-5, linear decay, betas .9/.999, bf16, effective batch 8, one epoch, LoRA r 16, alpha 32. The text says "all its
linear modules", Table 4 names q, k, v, o, up, down and gate: here all of them, vision tower and what joins it too.
One epoch is as many steps as the data has questions by eight: give --steps; the default is for 64k.
The data comes from ./chatvla relabel. Several devices hold the frozen base once each: what is saved is whole there.
Departures at tiny size, for a vocabulary of 573 tokens and a model of four million weights: one action for each part
(relabel with --step 1 --limit 1), lengths to the centimetre and plans that say from where to where (--decimals 2
--where), short prompts, the tool's place in them, rank 64, the likeliest answer in place of a
drawn one, and kinds of questions in shares: an episode asks once for the subtasks, which reading and choosing hang on.
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
    lora_targets="all-linear",
    ratio=(0, 1),
    steps=8_000,
    batch=8,
    micro_batch=1,
    lr=5e-5,
    lr_end=0.0,
    schedule="linear",
    warmup=0,
    checkpointing=True,
    shard=False,
)
TINY = replace(
    VLM2VLA,
    name="tiny_vlm2vla",
    summary="tiny VLM2VLA: adapters on the tiny pretrained VLM",
    init="tiny_base",
    data="data/math_match_language",
    prompts="short",
    tell_pose=True,
    temperatures="0,0,0,0",
    question_shares="subtasks:2,reach:4,plan:2,actions:1,way:1,direction:1,completion:1,end:1",
    lora_rank=64,
    lora_alpha=128,
    # The language model's, as in Table 4: a few hundred demonstrations would cost the tower what it knows of places.
    lora_targets="q_proj,k_proj,v_proj,o_proj,up_proj,down_proj,gate_proj",
    steps=1_200,
    # Two blocks of the shares.
    batch=24,
    micro_batch=24,
    lr=2e-3,
    warmup=50,
    beta2=0.98,
    precision="fp32",
    workers=1,
    validate_every=500,
    checkpoint_every=250,
    checkpointing=False,
)
TINY_LISTS = replace(
    TINY,
    name="tiny_vlm2vla_lists",
    summary="tiny VLM2VLA, from there on: half of the questions ask for the list of a plan",
    init="runs/tiny_vlm2vla/policy",
    # What comes often in the data was written in the place of what the plan says: 0.28 for 27 left.
    question_shares="actions:6,subtasks:2,reach:2,plan:1,completion:1",
    steps=500,
    lr=1e-3,
    warmup=20,
)

VLM2VLA_RECIPES: tuple[Recipe, ...] = (
    VLM2VLA,
    replace(VLM2VLA, name="vlm2vla_qwen", summary="VLM2VLA on a Qwen VL model", init="Qwen/Qwen3-VL-8B-Instruct"),
    TINY,
    TINY_LISTS,
    *(
        replace(recipe, name=f"{recipe.name}_{short}", summary=f"{recipe.summary}; {words}", variant=variant)
        for recipe in (VLM2VLA, TINY)
        for short, variant, words in (
            ("at", "action_tokens", "ablation: digits as rare tokens"),
            ("nr", "no_reasoning", "ablation: no subtasks, no plans"),
        )
    ),
)
