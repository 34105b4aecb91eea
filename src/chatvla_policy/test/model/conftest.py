# SPDX-License-Identifier: Apache-2.0
"""Random checkpoints and prompts for the model's tests.

The tests run on a micro model. The same tests at full width: CHATVLA_MODEL_SIZE=qwen2vl_2b, and, where memory is
short, CHATVLA_MODEL_LAYERS=2 to cut both halves down. Large sizes use a CUDA device if there is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen2VLForConditionalGeneration

from chatvla_policy.model.backbone import Backbone, load_backbone, save_backbone
from chatvla_policy.model.moe import MoeConfig
from chatvla_policy.model.tiny import make_tiny_folder
from chatvla_policy.model.upcycle import upcycle_backbone

SIZE = os.environ.get("CHATVLA_MODEL_SIZE", "micro")
LAYERS = int(os.environ["CHATVLA_MODEL_LAYERS"]) if "CHATVLA_MODEL_LAYERS" in os.environ else None
DEVICE = "cuda" if SIZE.startswith("qwen2vl") and torch.cuda.is_available() else "cpu"
SMALL_GRID, WIDE_GRID = (1, 4, 4), (1, 6, 8)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One batch as transformers takes it."""

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor | None
    image_grid_thw: Tensor | None
    image_token_id: int

    def inputs(self) -> dict[str, Tensor]:
        """Return transformers' keyword arguments."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.pixel_values is not None and self.image_grid_thw is not None:
            inputs |= {"pixel_values": self.pixel_values, "image_grid_thw": self.image_grid_thw}
            inputs["mm_token_type_ids"] = (self.input_ids == self.image_token_id).int()
        return inputs


@pytest.fixture(scope="session")
def tolerance() -> float:
    """Return how far logits of equal computations may lie apart, as a share of their spread."""
    return 2e-5 if DEVICE == "cpu" else 1e-3


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random dense checkpoint whose outputs vary from token to token."""
    path = make_tiny_folder(tmp_path_factory.mktemp("dense") / "model", size=SIZE, layers=LAYERS, seed=3)
    model = load_backbone(path)
    gain = 6.0 if SIZE == "micro" else 3.0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "visual" not in name and (SIZE == "micro" or "embed" not in name):
                weight.mul_(gain)
    save_backbone(model, path)
    return path


@pytest.fixture(scope="session")
def dense(folder: Path) -> Backbone:
    return load_backbone(folder, device=DEVICE)


@pytest.fixture(scope="session")
def transformers_model(folder: Path) -> Qwen2VLForConditionalGeneration:
    return Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(DEVICE).eval()


@pytest.fixture(scope="session")
def mixture(dense: Backbone) -> Backbone:
    """Return a dynamic mixture whose experts all differ."""
    return spread(upcycle_backbone(dense, MoeConfig(router_std=0.5)))


@pytest.fixture(scope="session")
def upcycled(dense: Backbone) -> Callable[..., Backbone]:
    """Return a maker of mixtures by their fields, for example upcycled(kind="static")."""

    def make(*, different: bool = False, **fields: object) -> Backbone:
        model = upcycle_backbone(dense, MoeConfig(**fields))
        return spread(model) if different else model

    return make


def spread(model: Backbone) -> Backbone:
    """Make every expert of `model` differ from its siblings, reproducibly."""
    generator = torch.Generator(device=model.device).manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "expert" in name:
                noise = torch.randn(weight.shape, generator=generator, device=weight.device)
                weight.add_(noise * weight.std() * 0.5)
    return model


@pytest.fixture(scope="session", params=["text", "one image", "several images", "left padding", "right padding"])
def prompt(request: pytest.FixtureRequest, dense: Backbone) -> Prompt:
    return make_prompt(request.param, dense)


@pytest.fixture(scope="session")
def image_prompt(dense: Backbone) -> Prompt:
    return make_prompt("one image", dense)


@pytest.fixture(scope="session")
def padded_prompt(dense: Backbone) -> Prompt:
    return make_prompt("right padding", dense)


def make_prompt(kind: str, model: Backbone) -> Prompt:
    """Return a batch of the named kind with random text and pixels."""
    rows = {
        "text": [[]],
        "one image": [[SMALL_GRID]],
        "several images": [[SMALL_GRID, WIDE_GRID, SMALL_GRID]],
        "left padding": [[WIDE_GRID], [], [SMALL_GRID, SMALL_GRID]],
        "right padding": [[WIDE_GRID], [], [SMALL_GRID, SMALL_GRID]],
    }[kind]
    generator = torch.Generator().manual_seed(len(kind))
    image_id = model.config.image_token_id
    texts = []
    for number, grids in enumerate(rows):
        parts = [torch.randint(0, 400, (6 + number,), generator=generator)]
        for _, height, width in grids:
            parts.append(torch.full((height * width // 4,), image_id))
            parts.append(torch.randint(0, 400, (3,), generator=generator))
        texts.append(torch.cat(parts))
    length = max(len(text) for text in texts)
    ids, mask = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length, dtype=torch.long)
    for row, text in enumerate(texts):
        place = slice(length - len(text), None) if kind == "left padding" else slice(len(text))
        ids[row, place], mask[row, place] = text, 1
    grids = [grid for row in rows for grid in row]
    patches = sum(height * width for _, height, width in grids)
    return Prompt(
        input_ids=ids.to(DEVICE),
        attention_mask=mask.to(DEVICE),
        pixel_values=torch.randn(patches, 1176, generator=generator).to(DEVICE) if grids else None,
        image_grid_thw=torch.tensor(grids, device=DEVICE) if grids else None,
        image_token_id=image_id,
    )
