# SPDX-License-Identifier: Apache-2.0
"""Say all of one training run: what is trained, on what, how long. Frozen; stored with the run and the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from chatvla_training.trainer.schedule import Schedule

__all__ = ["Precision", "Recipe", "RecipeError", "StageName", "changed"]

StageName = Literal["language", "stage1", "stage2", "control"]
Precision = Literal["fp32", "bf16"]
MoeName = Literal["keep", "dense", "dynamic", "static", "static+dynamic", "shared+dynamic"]
LoggerName = Literal["none", "tensorboard", "wandb"]
Normalisation = Literal["min_max", "quantile", "mean_std"]
Conditioning = Literal["latter_half", "all", "former_half", "film", "concat", "cross_attention", "none"]
Denoising = Literal["", "diffusion", "flow", "flow_clean"]
ActionSize = Literal["", "tiny", "compact", "compact_numbers", "compact_bare", "S", "B", "L", "XL", "H"]


class RecipeError(ValueError):
    """A recipe that can't run; the message names the key, its value and what is possible."""


GONE: Mapping[str, Any] = {"earlier": 0.0}
"""Fields of earlier versions, with the value at which they did nothing."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run. Every field is a `--key` of `./chatvla train`."""

    name: str
    summary: str
    stage: StageName
    """language: the language model and vision tower; stage1: everything; stage2: the action expert alone;
    control: the static mixture's control path and the action expert."""
    system: str = "chatvla2"
    """System of the checkpoint: a key of chatvla_policy.systems.SYSTEMS."""

    # What is trained.
    init: str = ""
    """Checkpoint of ours, or a Qwen2-VL folder or hub name; empty starts a new `size` from random weights."""
    init_vision: str = ""
    """Checkpoint of ours whose vision tower takes the place of init's."""
    size: str = "tiny"
    """Size of a new model; with a Qwen2-VL as init, the size of its action expert."""
    action_size: ActionSize = ""
    """Action expert of a new model, or a new one in stage 2; empty takes that of `size`, in stage 2 that of init."""
    moe: MoeName = "keep"
    """Mixture of experts: a dense start is upcycled; keep: as in init; dense averages the experts of a dynamic one and
    makes the action expert anew, which read what they said."""
    experts: int = 8
    top_k: int = 2
    balance_weight: float = 0.0
    z_weight: float = 0.0
    conditioning: Conditioning = "latter_half"
    denoising: Denoising = ""
    """How a new action expert cleans chunks: the papers' diffusion, or flow matching; empty: as its size says."""
    cameras: str = ""
    """Views that the policy sees, with commas, in this order; empty takes all of the data."""
    variant: str = "full"
    """VLM2VLA: full, action_tokens or no_reasoning."""
    prompts: str = "paper"
    """VLM2VLA: paper or short."""
    tell_pose: bool = False
    """VLM2VLA: write the tool's place into the prompts."""
    temperatures: str = ""
    """VLM2VLA: of subtasks, plans, actions and verdicts, with commas; empty: the paper's."""
    question_shares: str = ""
    """VLM2VLA: share of each kind of question in a batch, such as subtasks:3,plan:2; empty: as often as in the data."""
    robot: str = ""
    """Robot of a run without robot data; with data, theirs."""
    horizon: int = 50
    """Steps of an action chunk."""
    normalisation: Normalisation = "quantile"
    relative_actions: bool = False
    """Rotary joints' targets are learned as the way from where they are when the chunk begins."""
    image_width: int = 0
    """Width of the prepared images [px], height about 3/4 of it; 0 keeps the checkpoint's or the size's own."""
    readings: int = 0
    """How often the policy reads its images where it writes a text (test-time augmentation); 0 keeps init's."""
    init_gain: float = 1.0
    """Factor on the attention and MLP weights of a new model."""
    action_loss_weight: float = 1.0
    lora_rank: int = 0
    """Rank of LoRA adapters (peft); 0 trains the weights themselves."""
    lora_alpha: int = 32
    lora_targets: str = "q_proj,k_proj,v_proj,o_proj"
    freeze: str = ""
    """Prefixes of parameters, with commas, that stay as they are beyond what the stage freezes."""

    # On what.
    data: str = ""
    """Robot data sets: folders, with commas."""
    image_text: str = ""
    """Image-text data: KIND=FILE.json with commas (coco, textvqa, gqa, robopoint, qa) or synthetic:NAME."""
    scene_cache: str = "data/synthetic"
    """Folder where drawn synthetic scenes are kept; empty draws them every time."""
    ratio: tuple[int, int] = (1, 3)
    """Image-text samples to robot samples, exact in every block of their sum."""
    reword: bool = True
    """Draw a new wording of the reasoning for every sample, where the episode's facts allow."""
    brief: float = 0.0
    """Share of new wordings that are the conclusion alone, as a person who forces a thought writes it."""
    text_age_s: float = 0.0
    """New wordings say what was true up to so long before [s]: a policy goes on with a text that long."""
    frame_every: int = 1
    """Robot data: one frame in so many is a sample."""
    after_end: bool = False
    """Supervise resting at the last target after an episode's end."""
    objective: str = "vla"
    """What the loss is; see objectives.py."""
    cache_features: bool = False
    """Stage 2: run the frozen language model once and train on what it said."""
    cache_draws: int = 4
    """Wordings kept per frame."""
    cache_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    starts: int = 1
    """Stage 2 on kept features: how often each sample of an episode's first second comes in a round of the data."""
    displace_rad: float = 0.0
    """Stage 2 on kept features: how far measured joints are moved from where they were (data/displacement.py)."""

    # How long and how.
    steps: int
    batch: int = 128
    """Samples of one optimiser step, over all devices and micro-batches."""
    micro_batch: int = 16
    """Samples of one forward on one device."""
    lr: float = 2e-5
    lr_end: float = 2e-6
    schedule: Schedule = "cosine"
    warmup: int = 3000
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.0
    """Decay of the moving average that is saved and validated; 0: none."""
    precision: Precision = "bf16"
    checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    shard: bool = True
    """Shard weights, gradients and optimiser over several devices (FSDP); else each holds all."""
    seed: int = 0
    workers: int = 2
    """Processes that make batches."""
    validate_every: int = 1000
    validation_batches: int = 8
    checkpoint_every: int = 1000
    keep: int = 2
    """Training states kept."""
    storage: Literal["as_is", "bfloat16", "float32", "mixed"] = "bfloat16"
    """Type of the final checkpoint's weights; mixed: what reads joints and writes targets in float32."""
    log: LoggerName = "none"

    @property
    def keeps_expert(self) -> bool:
        """Whether action expert, cameras and statistics are those of init: stage 2 goes on where stage 1 ended."""
        return self.stage == "stage2" and not self.action_size

    def __post_init__(self) -> None:
        """Raise RecipeError for values that can't be trained with."""
        for item in fields(self):
            value, wanted = getattr(self, item.name), _hints()[item.name]
            if get_origin(wanted) is Literal and value not in get_args(wanted):
                known = ", ".join(repr(option) for option in get_args(wanted))
                raise RecipeError(f"{item.name} is {value!r}; it must be one of: {known}")
        from chatvla_policy.systems import SYSTEMS

        if self.system not in SYSTEMS:
            raise RecipeError(f"system is {self.system!r}; it must be one of: {', '.join(SYSTEMS)}")
        amounts = ("seed", "workers", "lora_rank", "image_width", "readings", "warmup", "weight_decay")
        for name in (*amounts, "balance_weight", "z_weight"):
            if getattr(self, name) < 0:
                raise RecipeError(f"{name} is {getattr(self, name)}, must not be negative")
        if self.clip <= 0:
            raise RecipeError(f"clip is {self.clip}, must be positive: longer gradients are shortened to it; 1e9 never")
        if self.stage == "stage2" and self.lora_rank:
            raise RecipeError("lora_rank adapts the language model, which stage2 does not train; leave it 0")
        counts = ("steps", "batch", "micro_batch", "frame_every", "horizon", "checkpoint_every", "keep", "cache_draws")
        for name in (*counts, "experts", "top_k"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.top_k > self.experts:
            raise RecipeError(f"top_k is {self.top_k} of {self.experts} experts; it must be at most their number")
        if self.lr <= 0 or self.lr_end < 0:
            raise RecipeError(f"lr is {self.lr} and lr_end {self.lr_end}; lr must be positive, lr_end not negative")
        if not 0 <= self.ema < 1:
            raise RecipeError(f"ema is {self.ema}, must lie in 0 to below 1")
        if self.displace_rad < 0 or (self.displace_rad and not self.cache_features):
            raise RecipeError(f"displace_rad is {self.displace_rad}; it must be positive and needs cache_features")
        if self.starts < 1 or (self.starts > 1 and not self.cache_features):
            raise RecipeError(f"starts is {self.starts}; it must be at least 1, and more than 1 needs cache_features")
        if self.text_age_s < 0:
            raise RecipeError(f"text_age_s is {self.text_age_s}; it must not be negative")
        if self.cache_features and self.stage != "stage2":
            raise RecipeError(f"cache_features needs a frozen language model: stage2, not {self.stage}")
        # An expert that is kept keeps its statistics; VLM2VLA has none.
        if self.normalisation == "mean_std" and not self.keeps_expert and self.system != "vlm2vla":
            _check_reach(self.action_size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def said_now(cls, before: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an earlier version said of a recipe in the present fields, as plain data.

        What it did not know has its default; what is gone and did nothing is left out.
        """
        known = {item.name: item.default for item in fields(cls) if item.default is not MISSING}
        said = {name: value for name, value in before.items() if not (name in GONE and value == GONE[name])}
        return json.loads(json.dumps(known)) | said


def _check_reach(size: str) -> None:
    """Raise RecipeError for an action expert that clips its chunks, where 1 is a single standard deviation."""
    from chatvla_policy.model.action.config import ACTION_SIZES

    unclipped = [name for name, config in ACTION_SIZES.items() if not config.clip_sample]
    if size not in unclipped:
        raise RecipeError(
            f"normalisation is 'mean_std' with action_size {size!r}, which clips chunks to one standard deviation from "
            f"the mean; give quantile or min_max, or one of the sizes {', '.join(unclipped)}"
        )


def changed(recipe: Recipe, values: dict[str, str]) -> Recipe:
    """Return `recipe` with fields set from text. Raises RecipeError naming the nearest field for an unknown one."""
    from difflib import get_close_matches

    known = [item.name for item in fields(Recipe) if item.name not in ("name", "summary")]
    found: dict[str, Any] = {}
    for key, text in values.items():
        name = key.replace("-", "_")
        if name not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean --{close[0]}?" if close else "."
            raise RecipeError(f"there is no key --{key}{hint} Keys: {', '.join(known)}")
        found[name] = _parsed(name, text)
    return replace(recipe, **found)


def _parsed(name: str, text: str) -> Any:
    wanted = _hints()[name]
    try:
        if wanted is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if wanted is int:
            return int(text)
        if wanted is float:
            return float(text)
        if get_origin(wanted) is tuple:
            parts = [int(part) for part in text.replace(":", ",").split(",")]
            if len(parts) != 2 or min(parts) < 0:
                raise ValueError(text)
            return (parts[0], parts[1])
    except (ValueError, KeyError) as error:
        kind = "two whole numbers such as 1:3" if get_origin(wanted) is tuple else getattr(wanted, "__name__", "")
        raise RecipeError(f"--{name} is {text!r}, expected {kind}") from error
    return text


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Recipe)
