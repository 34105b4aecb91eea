# SPDX-License-Identifier: Apache-2.0
"""Train low-rank adapters in the place of the language model's weights, and fold them in at the end.

W' = W + (alpha / r) B A,   with W frozen, A and B trained (Hu et al. 2021); adapters by peft.
"""

from __future__ import annotations

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_training.recipe import RecipeError

__all__ = ["add_lora", "fold_lora"]


def add_lora(model: ChatVLA2, *, rank: int, alpha: int, targets: str, seed: int) -> tuple[str, ...]:
    """Put adapters on the backbone's linear layers named in `targets` (with commas), in place; return what trains.

    The rest of the backbone is frozen; queries and action expert train as the stage says.
    Raises RecipeError when no layer has such a name.
    """
    names = [part.strip() for part in targets.split(",") if part.strip()]
    linear = {name.rpartition(".")[2] for name, part in model.backbone.named_modules() if isinstance(part, nn.Linear)}
    unknown = sorted(set(names) - linear)
    if unknown or not names:
        raise RecipeError(
            f"lora_targets: no layer {', '.join(unknown) or 'given'}; there are: {', '.join(sorted(linear))}"
        )
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0)
    inject_adapter_in_model(config, model.backbone)
    for name, parameter in model.backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)


@torch.no_grad()
def fold_lora(model: nn.Module) -> None:
    """Add every adapter to the weight it stands on and take it out, in place: the layers are plain again."""
    for name, part in list(model.named_modules()):
        if not isinstance(part, LoraLayer):
            continue
        part.merge()  # pyright: ignore[reportCallIssue]
        parent, _, leaf = name.rpartition(".")
        owner = model.get_submodule(parent)
        base = part.get_base_layer()
        if isinstance(owner, nn.ModuleList):
            owner[int(leaf)] = base
        else:
            setattr(owner, leaf, base)
