# SPDX-License-Identifier: Apache-2.0
"""Say which layers of a base model get adapters: linear ones alone, by name or all of them.

(VLM2VLA, section 3.2 and Table 4)
"""

from __future__ import annotations

from torch import nn

from chatvla_training.recipe import RecipeError

__all__ = ["ALL", "linear_modules"]

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
