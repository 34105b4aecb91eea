# SPDX-License-Identifier: Apache-2.0
"""Train VLM2VLA: a VLM of transformers with low-rank adapters on all of its linear modules, on relabelled data.

B rows; T tokens; W vocabulary. (VLM2VLA, appendix E)
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from chatvla_control.contracts import ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.checkpoint.setup import RobotSetup
from chatvla_policy.model.loss import LossTerms
from chatvla_policy.processing.statistics import RobotStatistics, Statistics
from chatvla_policy.strict_json import from_plain
from chatvla_policy.systems import shipped_names, system_of
from chatvla_policy.vlm2vla.config import ArmAnchors, RobotMotion, Temperatures, Vlm2VlaConfig
from chatvla_policy.vlm2vla.folder import open_vlm2vla, save_vlm2vla
from chatvla_policy.vlm2vla.image_text_model import ImageTextModel, load_base
from chatvla_training.build_data import image_text_sources
from chatvla_training.build_model import init_folder
from chatvla_training.data.mixture import Mixture
from chatvla_training.data.samples import ChatSample, readable
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.trainer.task import TrainingTask
from chatvla_training.vlm2vla.adapters import with_adapter
from chatvla_training.vlm2vla.base import export_base
from chatvla_training.vlm2vla.language_data import (
    LanguageBatch,
    LanguageCollate,
    LanguageGroups,
    LanguageSample,
    LanguageSource,
)
from chatvla_training.vlm2vla.shares import language_groups

__all__ = ["Vlm2VlaRun", "motion_of", "rarest_tokens", "setup_of"]

DIGITS = 10
ROOM = 1.2
"""How much longer an answer may be than the longest of the data."""


class _Loss(nn.Module):
    """The model with its loss, called as the loop calls every module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: LanguageGroups, *, generator: torch.Generator | None = None) -> LossTerms:
        """Return the language loss of the batch."""
        total = torch.stack([self._loss(part) for part in batch.parts]).sum()
        zero = total.detach().new_zeros(())
        return LossTerms(
            language_sum=total,
            language_tokens=_written(batch),
            action_sum=zero,
            action_steps=0,
            router=zero,
            action_weight=1.0,
        )

    def _loss(self, part: LanguageBatch) -> Tensor:
        logits_BTW = self.model(**part.inputs, use_cache=False).logits
        written_BT = part.written_BT[:, 1:]
        chosen = logits_BTW[:, :-1][written_BT].float()
        return functional.cross_entropy(chosen, part.inputs["input_ids"][:, 1:][written_BT], reduction="sum")


def _written(batch: LanguageGroups) -> int:
    """Return the number of tokens that answers have."""
    return sum(int(part.written_BT.sum()) for part in batch.parts)


class LanguageTask:
    """The TrainingTask of a VLM with adapters."""

    def __init__(self, model: nn.Module) -> None:
        self.module: nn.Module = _Loss(model)

    def counts(self, batch: LanguageGroups) -> tuple[int, int]:
        """Return written tokens and no chunk steps."""
        return _written(batch), 0

    def place(self, batch: LanguageGroups, device: torch.device) -> LanguageGroups:
        """Return the batch on `device`."""
        parts = [
            LanguageBatch(
                inputs={key: value.to(device) for key, value in part.inputs.items()},
                written_BT=part.written_BT.to(device),
            )
            for part in batch.parts
        ]
        return LanguageGroups(parts=tuple(parts))

    def action_error(self, batch: LanguageGroups, generator: torch.Generator) -> Mapping[str, tuple[float, int]]:
        """Return nothing: actions are text here."""
        return {}


class Vlm2VlaRun:
    """One run; see system_runs.SystemRun."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        """Open data and base. Raises RecipeError, and what the sources raise."""
        self._recipe, self._accelerator = recipe, accelerator
        folders = [Path(part.strip()) for part in recipe.data.split(",") if part.strip()]
        if not folders or not recipe.init:
            raise RecipeError(f"recipe {recipe.name} needs --data (made by ./chatvla relabel) and --init, a VLM")
        self._work: tempfile.TemporaryDirectory[str] | None = None
        self._adapter: Path | None = None
        self._digits: tuple[int, ...] = ()
        self._origin = {"base": recipe.init}
        self._base, size = self._opened(recipe.init)
        # A variant with digit tokens is not whole before they are chosen: the text it asks is the full one's.
        plain = "full" if recipe.variant == "action_tokens" else recipe.variant
        self._config = Vlm2VlaConfig(
            base="" if self._work else str(self._base),
            variant=plain,
            prompts=recipe.prompts,
            tell_pose=recipe.tell_pose,
            temperatures=_temperatures(recipe),
            image_width=size[0],
            image_height=size[1],
        )
        sources = [LanguageSource(folder, self._config) for folder in folders]
        held = [LanguageSource(folder, self._config, split="val") for folder in folders]
        self.held = tuple(source for source in held if len(source))
        self._sources, self._infos = sources, [source.info for source in sources]
        decimals = {info.get("decimals", self._config.decimals) for info in self._infos}
        if len(decimals) > 1:
            raise RecipeError(
                f"{recipe.data}: lengths have {sorted(decimals)} decimals; relabel with the same --decimals"
            )
        self._config = replace(self._config, decimals=decimals.pop())
        for key in ("views", "step_period_s", "open_m", "closed_m"):
            for robot in {info["robot"] for info in self._infos}:
                values = {json.dumps(info[key]) for info in self._infos if info["robot"] == robot}
                if len(values) > 1:
                    raise RecipeError(
                        f"{recipe.data}: {key} of {robot} is {' and '.join(sorted(values))}; train on one"
                    )
        chat = image_text_sources(recipe) if recipe.ratio[0] else ()
        groups = language_groups(sources, chat, ratio=recipe.ratio, shares=recipe.question_shares)
        self.mixture = Mixture(groups, seed=recipe.seed)

    def _opened(self, init: str) -> tuple[str | Path, tuple[int, int]]:
        """Return the base model's folder or hub name, and width and height [px] of its pictures.

        A checkpoint of VLM2VLA gives its base, and its adapter to go on from. Raises RecipeError for an init that is
        neither there nor a hub's name.
        """
        folder = init_folder(init)
        if (folder / "manifest.json").is_file() and system_of(folder) == "vlm2vla":
            return self._going_on(folder)
        if (folder / "manifest.json").is_file():
            self._work = tempfile.TemporaryDirectory(prefix="chatvla-base-")
            base = Path(self._work.name)
            return base, export_base(folder, base)
        if not folder.is_dir() and (init.count("/") != 1 or init.startswith((".", "/", "~"))):
            known = ", ".join(shipped_names()) or "none"
            raise RecipeError(
                f"init {init} is not there: no folder, no name such as Qwen/Qwen3-VL-8B-Instruct, no checkpoint that "
                f"comes with the package ({known}); give --init tiny_base, or make it: ./chatvla train NAME leaves "
                "runs/NAME/policy"
            )
        return init, (320, 240)

    def _going_on(self, folder: Path) -> tuple[str | Path, tuple[int, int]]:
        """Return base and picture size of a checkpoint of VLM2VLA. Raises RecipeError where the recipe's differ."""
        recipe, opened = self._recipe, open_vlm2vla(folder)
        config = opened.config
        had = (config.variant, config.prompts, config.tell_pose)
        asked = (recipe.variant, recipe.prompts, recipe.tell_pose)
        if had != asked:
            raise RecipeError(f"{folder} has variant, prompts, tell_pose {had}, the recipe {asked}; give the former")
        self._adapter, self._digits = opened.adapter, config.digit_tokens
        self._origin = {
            "base": str(opened.parts.provenance.get("base", opened.base)),
            "init": recipe.init,
            "init_sha256": opened.parts.sha256,
        }
        size = (config.image_width, config.image_height)
        if config.base:
            return config.base, size
        # The run's folder of the base is its own, which saving takes along.
        self._work = tempfile.TemporaryDirectory(prefix="chatvla-base-")
        base = Path(self._work.name)
        shutil.copytree(opened.base, base, dirs_exist_ok=True)
        return base, size

    def build(self) -> tuple[TrainingTask, Any]:
        """Return the task and the way from samples to batches."""
        recipe = self._recipe
        # A base of ours is small; of another, the frozen weights alone fill a device in float32.
        exact = self._work is not None or recipe.precision == "fp32"
        model, processor = load_base(self._base, dtype=torch.float32 if exact else torch.bfloat16)
        size = (self._config.image_width, self._config.image_height)
        digits = self._digits
        if recipe.variant == "action_tokens" and not digits:
            first = [self.held or self.mixture.groups[-1].sources][0]
            asked = list(islice(readable(first[0]), 64))
            asking = ImageTextModel(model.eval().to(self._accelerator.device), processor, size=size)
            # The first device's, as near ties may come out otherwise on another.
            digits = tuple(broadcast_object_list(list(rarest_tokens(asking, asked))))
        collate = LanguageCollate(ImageTextModel(model, processor, size=size, digit_tokens=digits).inputs)
        self._config = replace(
            self._config,
            variant=recipe.variant,
            digit_tokens=digits,
            max_new_tokens=max(self._config.max_new_tokens, self._longest(collate)),
        )
        torch.manual_seed(recipe.seed)
        self._model = with_adapter(model, recipe, self._adapter)
        if recipe.checkpointing:
            self._model.enable_input_require_grads()
            self._model.gradient_checkpointing_enable({"use_reentrant": False})
        return LanguageTask(self._model), _Collate(collate)

    def _longest(self, collate: LanguageCollate) -> int:
        """Return how many tokens an answer may have: those of the data's longest, and some more."""
        answers = [item.answer for source in self._sources for item in source.longest(32)]
        longest = max((collate.answer_tokens(answer) for answer in answers), default=0)
        return 8 * math.ceil(ROOM * longest / 8)

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Write the checkpoint: the adapter as an adapter; a base of ours travels along."""
        robots = tuple(setup_of(info) for info in self._infos)
        config = replace(self._config, robots=tuple(motion_of(info) for info in self._infos))
        own = self._base if self._work is not None else None
        origin = {**self._origin, "relabelled": [info["source"] for info in self._infos]}
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
        exact = self._recipe.storage in ("as_is", "float32")
        with tempfile.TemporaryDirectory() as work:
            model.save_pretrained(work, save_embedding_layers=False)
            weights = load_file(Path(work) / "adapter_model.safetensors")
            config = json.loads((Path(work) / "adapter_config.json").read_text(encoding="utf-8"))
        kept = {name: value if exact else value.bfloat16() for name, value in sorted(weights.items())}
        # The library's own save_file keeps others of the machine from reading it.
        (folder / "adapter_model.safetensors").write_bytes(save(kept, metadata={"format": "pt"}))
        # peft keeps them as a set, whose order is another in every process.
        config["target_modules"] = sorted(config["target_modules"])
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _temperatures(recipe: Recipe) -> Temperatures:
    try:
        return Temperatures.from_text(recipe.temperatures)
    except ValueError as error:
        raise RecipeError(f"temperatures: {error}") from error


class _Collate:
    """Questions of robot data and dialogues of image-text data in one batch."""

    def __init__(self, collate: LanguageCollate) -> None:
        self._collate = collate

    def __call__(self, samples: Sequence[LanguageSample | ChatSample]) -> LanguageGroups:
        """Return the batch; of a dialogue, the last turn is asked."""
        asked = [item if isinstance(item, LanguageSample) else _last_turn(item) for item in samples]
        return self._collate.grouped(asked)


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
        placed = {key: value.to(model.device) for key, value in batch.inputs.items()}
        inputs = {key: value.to(model.dtype) if value.is_floating_point() else value for key, value in placed.items()}
        written_T = batch.written_BT[0, 1:].to(model.device)
        logits_TW = model.model(**inputs, use_cache=False).logits[0, :-1][written_T]
        shares_W = logits_TW.float().log_softmax(-1).mean(0)
        total_W = shares_W if total_W is None else total_W + shares_W
    assert total_W is not None
    tokenizer = model.processor.tokenizer
    total_W = total_W[: len(tokenizer)].clone()
    total_W[[token for token in tokenizer.all_special_ids if token < len(total_W)]] = torch.inf
    return tuple(int(token) for token in total_W.argsort()[:DIGITS])


def setup_of(info: dict[str, Any]) -> RobotSetup:
    """Return robot, cameras and statistics of a relabelled data set, given its info.json."""
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


def motion_of(info: dict[str, Any]) -> RobotMotion:
    """Return what a relabelled data set says of its robot's grippers and how its tools are turned."""
    arms = tuple(
        ArmAnchors(arm=arm, anchors=tuple(tuple(map(float, row)) for row in rows))
        for arm, rows in info["anchors"].items()
    )
    return RobotMotion(robot=info["robot"], open_m=info["open_m"], closed_m=info["closed_m"], arms=arms)
