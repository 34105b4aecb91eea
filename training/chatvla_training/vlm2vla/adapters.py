# SPDX-License-Identifier: Apache-2.0
"""Put adapters on a base model: on linear layers alone, by name or all of them, new ones or those of a checkpoint.

(VLM2VLA, section 3.2 and Table 4)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from chatvla_training.recipe import Recipe, RecipeError

__all__ = ["ALL", "linear_modules", "with_adapter"]

ALL = "all-linear"
"""Every linear layer but the one that writes words."""


def linear_modules(model: nn.Module, targets: str) -> tuple[str, ...]:
    """Return the full names of the linear layers in `targets` (last parts of names, with commas), or of ALL.

    Raises RecipeError naming what is not there. A convolution of the same name gets no adapter.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # pyright: ignore
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head}
    names = {name.rpartition(".")[2] for name in linear}
    wanted = names if targets.strip() == ALL else {part.strip() for part in targets.split(",") if part.strip()}
    unknown = sorted(wanted - names)
    if unknown or not wanted:
        raise RecipeError(
            f"lora_targets: no linear layer {', '.join(unknown) or 'given'}; "
            f"there are: {ALL}, {', '.join(sorted(names))}"
        )
    return tuple(name for name in linear if name.rpartition(".")[2] in wanted)


def with_adapter(model: Any, recipe: Recipe, adapter: Path | None) -> PeftModel:
    """Return `model` with a new adapter as `recipe` says, or with the one of folder `adapter`, to train on.

    Raises RecipeError where recipe and adapter differ.
    """
    if not recipe.lora_rank or recipe.freeze:
        raise RecipeError("VLM2VLA trains adapters alone: give --lora_rank, such as 16, and leave freeze empty")
    targets, rank, alpha = linear_modules(model, recipe.lora_targets), recipe.lora_rank, recipe.lora_alpha
    if adapter is None:
        return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=0))
    adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    config: Any = adapted.peft_config[adapted.active_adapter]
    if (config.r, config.lora_alpha) != (rank, alpha):
        had = f"rank {config.r}, alpha {config.lora_alpha}"
        raise RecipeError(f"{recipe.init} has an adapter of {had}; give --lora_rank and --lora_alpha so")
    if set(adapted.base_model.targeted_module_names) != set(targets):
        raise RecipeError(f"{recipe.init} adapts other layers than lora_targets names; give what it was made with")
    return adapted
