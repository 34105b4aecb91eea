# SPDX-License-Identifier: Apache-2.0
"""Train VLM2VLA: a VLM of transformers with low-rank adapters on all of its linear modules, on relabelled data.

B rows; T tokens; W vocabulary. (VLM2VLA, appendix E)
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional

from chatvla_control.contracts import ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.checkpoint.setup import RobotSetup
from chatvla_policy.model.loss import LossTerms
from chatvla_policy.processing.statistics import RobotStatistics, Statistics
from chatvla_policy.strict_json import from_plain
from chatvla_policy.vlm2vla.config import ArmAnchors, RobotMotion, Vlm2VlaConfig
from chatvla_policy.vlm2vla.folder import save_vlm2vla
from chatvla_policy.vlm2vla.image_text_model import ImageTextModel, load_base
from chatvla_training.build_data import image_text_sources
from chatvla_training.data.mixture import Group, Mixture
from chatvla_training.data.samples import ChatSample
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.trainer.task import TrainingTask
from chatvla_training.vlm2vla.base import export_base
from chatvla_training.vlm2vla.language_data import LanguageBatch, LanguageCollate, LanguageSample, LanguageSource

__all__ = ["Vlm2VlaRun", "rarest_tokens"]

DIGITS = 10


class _Loss(nn.Module):
    """The model with its loss, called as the loop calls every module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: LanguageBatch, *, generator: torch.Generator | None = None) -> LossTerms:
        """Return the language loss of the batch."""
        logits_BTW = self.model(**batch.inputs, use_cache=False).logits
        written_BT = batch.written_BT[:, 1:]
        chosen = logits_BTW[:, :-1][written_BT].float()
        total = functional.cross_entropy(chosen, batch.inputs["input_ids"][:, 1:][written_BT], reduction="sum")
        zero = total.detach().new_zeros(())
        return LossTerms(
            language_sum=total,
            language_tokens=int(written_BT.sum()),
            action_sum=zero,
            action_steps=0,
            router=zero,
            action_weight=1.0,
        )


class LanguageTask:
    """The TrainingTask of a VLM with adapters."""

    def __init__(self, model: nn.Module) -> None:
        self.module: nn.Module = _Loss(model)

    def counts(self, batch: LanguageBatch) -> tuple[int, int]:
        """Return written tokens and no chunk steps."""
        return int(batch.written_BT.sum()), 0

    def place(self, batch: LanguageBatch, device: torch.device) -> LanguageBatch:
        """Return the batch on `device`."""
        inputs = {key: value.to(device) for key, value in batch.inputs.items()}
        return LanguageBatch(inputs=inputs, written_BT=batch.written_BT.to(device))

    def action_error(self, batch: LanguageBatch, generator: torch.Generator) -> Mapping[str, tuple[float, int]]:
        """Return nothing: actions are text here."""
        return {}


class Vlm2VlaRun:
    """One run; see system_runs.SystemRun."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        """Open data and base. Raises RecipeError, and what the sources raise."""
        self._recipe = recipe
        folders = [Path(part.strip()) for part in recipe.data.split(",") if part.strip()]
        if not folders or not recipe.init:
            raise RecipeError(f"recipe {recipe.name} needs --data (made by ./chatvla relabel) and --init, a VLM")
        self._base: str | Path = recipe.init
        size = (320, 240)
        self._work: tempfile.TemporaryDirectory[str] | None = None
        if (Path(recipe.init) / "manifest.json").is_file():
            self._work = tempfile.TemporaryDirectory(prefix="chatvla-base-")
            self._base = Path(self._work.name)
            size = export_base(Path(recipe.init), self._base)
        # A variant with digit tokens is not whole before they are chosen: the text it asks is the full one's.
        plain = "full" if recipe.variant == "action_tokens" else recipe.variant
        self._config = Vlm2VlaConfig(
            base="" if self._work else str(recipe.init),
            variant=plain,
            prompts=recipe.prompts,
            tell_pose=recipe.tell_pose,
            image_width=size[0],
            image_height=size[1],
        )
        sources = [LanguageSource(folder, self._config) for folder in folders]
        held = [LanguageSource(folder, self._config, split="val") for folder in folders]
        self.held = tuple(source for source in held if len(source))
        self._infos = [source.info for source in sources]
        chat_share, robot_share = recipe.ratio
        groups = [
            Group(name="image_text", share=chat_share, sources=image_text_sources(recipe) if chat_share else ()),
            Group(name="robot", share=robot_share, sources=tuple(sources)),
        ]
        self.mixture = Mixture(groups, seed=recipe.seed)

    def build(self) -> tuple[TrainingTask, Any]:
        """Return the task and the way from samples to batches."""
        recipe = self._recipe
        model, processor = load_base(self._base, dtype=torch.float32)
        size = (self._config.image_width, self._config.image_height)
        digits: tuple[int, ...] = ()
        if recipe.variant == "action_tokens":
            first = [self.held or self.mixture.groups[-1].sources][0]
            asked = [first[0].sample(index, 0) for index in range(min(len(first[0]), 64))]
            digits = rarest_tokens(ImageTextModel(model.eval(), processor, size=size), asked)
        self._config = replace(self._config, variant=recipe.variant, digit_tokens=digits)
        torch.manual_seed(recipe.seed)
        targets = [part.strip() for part in recipe.lora_targets.split(",") if part.strip()]
        lora = LoraConfig(
            r=recipe.lora_rank or 16, lora_alpha=recipe.lora_alpha, target_modules=targets, lora_dropout=0
        )
        self._model = get_peft_model(model, lora)
        if recipe.checkpointing:
            self._model.enable_input_require_grads()
            self._model.gradient_checkpointing_enable({"use_reentrant": False})
        collate = LanguageCollate(ImageTextModel(model, processor, size=size, digit_tokens=digits).inputs)
        return LanguageTask(self._model), _Collate(collate)

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Write the checkpoint: the adapter as an adapter; a base of ours travels along."""
        robots = tuple(_setup(info) for info in self._infos)
        config = replace(self._config, robots=tuple(_motion(info) for info in self._infos))
        own = self._base if self._work is not None else None
        origin = {"base": str(self._recipe.init), "relabelled": [info["source"] for info in self._infos]}
        save_vlm2vla(
            folder,
            config,
            robots,
            {**provenance, **origin},
            write_adapter=self._write_adapter,
            base=Path(own) if own is not None else None,
        )
        if self._work is not None:
            self._work.cleanup()

    def _write_adapter(self, folder: Path) -> None:
        model = self._model.cpu()
        for item in model.peft_config.values():
            # Whoever loads the checkpoint names the base; a path of this machine means nothing elsewhere.
            item.base_model_name_or_path = self._config.base
        with tempfile.TemporaryDirectory() as work:
            model.save_pretrained(work, save_embedding_layers=False)
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copyfile(Path(work) / name, folder / name)


class _Collate:
    """Questions of robot data and dialogues of image-text data in one batch."""

    def __init__(self, collate: LanguageCollate) -> None:
        self._collate = collate

    def __call__(self, samples: Sequence[LanguageSample | ChatSample]) -> LanguageBatch:
        """Return the batch; of a dialogue, the last turn is asked."""
        return self._collate([item if isinstance(item, LanguageSample) else _last_turn(item) for item in samples])


def _last_turn(sample: ChatSample) -> LanguageSample:
    turn = sample.turns[-1]
    return LanguageSample(id=sample.id, images=sample.images, question=turn.question, answer=turn.answer, mapped=False)


@torch.no_grad()
def rarest_tokens(model: ImageTextModel, samples: Sequence[LanguageSample]) -> tuple[int, ...]:
    """Return the ten token ids that the base model gives the least probability in action lists, 0 the least.

    Control tokens are left out. (VLM2VLA, appendix B.3: digits become the ten least likely tokens)
    """
    collate = LanguageCollate(model.inputs)
    total_W: Tensor | None = None
    for sample in [item for item in samples if item.mapped][:8] or list(samples[:8]):
        batch = collate([sample])
        logits_TW = model.model(**batch.inputs, use_cache=False).logits[0, :-1][batch.written_BT[0, 1:]]
        shares_W = logits_TW.float().log_softmax(-1).mean(0)
        total_W = shares_W if total_W is None else total_W + shares_W
    assert total_W is not None
    tokenizer = model.processor.tokenizer
    total_W = total_W[: len(tokenizer)].clone()
    total_W[[token for token in tokenizer.all_special_ids if token < len(total_W)]] = torch.inf
    return tuple(int(token) for token in total_W.argsort()[:DIGITS])


def _setup(info: dict[str, Any]) -> RobotSetup:
    statistics = RobotStatistics(
        state=from_plain(Statistics, info["state"]), action=from_plain(Statistics, info["action"])
    )
    return RobotSetup(
        spec=robot_spec(info["robot"]),
        cameras=tuple(info["views"]),
        statistics=statistics,
        mode=ActionMode.CARTESIAN_POSE,
        step_period_s=info["step_period_s"],
    )


def _motion(info: dict[str, Any]) -> RobotMotion:
    arms = tuple(
        ArmAnchors(arm=arm, anchors=tuple(tuple(map(float, row)) for row in rows))
        for arm, rows in info["anchors"].items()
    )
    return RobotMotion(robot=info["robot"], open_m=info["open_m"], closed_m=info["closed_m"], arms=arms)
