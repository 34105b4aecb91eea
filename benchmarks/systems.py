# SPDX-License-Identifier: Apache-2.0
"""Measure the time of one decision of each system at equal size, weights untrained, lengths of texts fixed.

A decision of ChatVLA-2, ChatVLA-1 and the dense baseline is a reasoning of 48 tokens, read once, and its chunk of 50
steps; of the diffusion policy a chunk; of VLM2VLA a plan of 40 tokens and an action list of 180 (six actions: one
subtask, which moves the arm for a second or two). Its list of eight subtasks, 137 tokens once an instruction, is a
figure of its own. Sizes are those of the checkpoints that come with the package: the tiny language model, one view
brought to 308x224, the compact action expert. One thread, float32 on a CPU.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from chatvla_control.contracts import Observation
from chatvla_control.robot_spec import robot_spec
from chatvla_policy.checkpoint import Checkpoint, RobotSetup
from chatvla_policy.model.action import Embodiment
from chatvla_policy.model.action.config import action_size
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_policy.model.config import chatvla2_config
from chatvla_policy.model.diffusion_policy import DiffusionPolicyConfig, DiffusionPolicyModel
from chatvla_policy.model.moe import MoeConfig
from chatvla_policy.model.tiny import make_tiny_folder, make_tiny_tokenizer
from chatvla_policy.processing.statistics import RobotStatistics, Statistics
from chatvla_policy.processing.tokens import TextCodec
from chatvla_policy.systems.chatvla1 import ChatVLA1Policy
from chatvla_policy.systems.chatvla2 import ChatVLA2Policy
from chatvla_policy.systems.dense_film import DenseFilmPolicy
from chatvla_policy.systems.diffusion_policy import DiffusionPolicy
from chatvla_policy.vlm2vla.image_text_model import ImageTextModel
from chatvla_policy.vlm2vla.prompts import PROMPTS

__all__ = ["measure"]

SIZE, ROBOT = "tiny", "arx_r5"
REASONING_TOKENS, PLAN_TOKENS, ACTION_TOKENS, SUBTASKS_TOKENS = 48, 40, 180, 137
"""VLM2VLA's as counted on relabelled demonstrations in the shipped vocabulary: an action has 28 to 30 tokens."""
WIDTH, HEIGHT = 308, 224
REPEATS = 5
SUBTASK = "left arm: Move to the left card"


def measure() -> dict[str, dict[str, Any]]:
    """Return the median time of a decision per system; takes about two minutes on one free core."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seen = _observation()
    family = {
        "chatvla2": (ChatVLA2Policy, MoeConfig(), "latter_half"),
        "chatvla1": (ChatVLA1Policy, MoeConfig(kind="static"), "film"),
        "dense_film": (DenseFilmPolicy, MoeConfig(kind="dense"), "film"),
    }
    found: dict[str, float] = {}
    for system, (kind, moe, conditioning) in family.items():
        policy = kind(_checkpoint(system, moe, conditioning))
        found[f"{system}_decision"] = _median_ms(lambda policy=policy: policy.infer(seen))
    diffusion = _diffusion_policy()
    found["diffusion_policy_decision"] = _median_ms(lambda: diffusion.infer(seen))
    with tempfile.TemporaryDirectory() as folder:
        model = ImageTextModel.load(_base(Path(folder) / "base"), adapter=None, size=(WIDTH, HEIGHT))
        found["vlm2vla_decision"] = _median_ms(lambda: _cycle(model, seen))
        found["vlm2vla_subtasks"] = _median_ms(lambda: _write(model, seen, "subtasks", SUBTASKS_TOKENS))
    figures = {name: _figure(value, "ms") for name, value in found.items()}
    figures["vlm2vla_over_chatvla2"] = _figure(found["vlm2vla_decision"] / found["chatvla2_decision"], "ratio")
    return figures


def _figure(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "bar": None, "better": "lower"}


def _median_ms(act: Callable[[], object]) -> float:
    act()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        act()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def _setup() -> RobotSetup:
    spec = robot_spec(ROBOT)
    limits = Statistics.from_samples(spec.joint_names, np.stack([spec.lower, spec.upper]), "min_max")
    return RobotSetup(spec=spec, cameras=("top",), statistics=RobotStatistics(state=limits, action=limits))


def _embodiment() -> Embodiment:
    width = robot_spec(ROBOT).width
    return Embodiment(name=ROBOT, state_width=width, action_width=width, horizon=50)


def _checkpoint(system: str, moe: MoeConfig, conditioning: str) -> Checkpoint:
    codec = TextCodec(Tokenizer.from_str(make_tiny_tokenizer().backend_tokenizer.to_str()))
    config = chatvla2_config(
        SIZE, embodiments=(_embodiment(),), codec=codec, moe=moe, action="compact", conditioning=conditioning
    )
    images = replace(config.images, width=WIDTH, height=HEIGHT)
    config = replace(config, system=system, images=images, readings=1, max_reasoning_tokens=REASONING_TOKENS)
    model = ChatVLA2(config).eval()
    return Checkpoint(model=model, codec=codec, robots=(_setup(),))


def _diffusion_policy() -> DiffusionPolicy:
    action = action_size("tiny", conditioning="none", queries=1, embodiments=(_embodiment(),))
    config = DiffusionPolicyConfig(action=action, channels=(32, 64, 128, 128), blocks=1)
    return DiffusionPolicy(DiffusionPolicyModel(config), _setup())


def _base(folder: Path) -> Path:
    """Return the folder of a base model with random weights that sees whole pictures."""
    make_tiny_folder(folder, size=SIZE)
    path = folder / "preprocessor_config.json"
    values = json.loads(path.read_text())
    values |= {"max_pixels": WIDTH * HEIGHT, "size": values["size"] | {"longest_edge": WIDTH * HEIGHT}}
    path.write_text(json.dumps(values))
    return folder


def _cycle(model: ImageTextModel, seen: Observation) -> None:
    """Write the plan and the actions of one subtask, whatever they say."""
    _write(model, seen, "plan", PLAN_TOKENS)
    _write(model, seen, "actions", ACTION_TOKENS)


def _write(model: ImageTextModel, seen: Observation, name: str, tokens: int) -> None:
    """Write an answer of so many tokens to one of VLM2VLA's questions."""
    words = {"task": seen.instruction, "subtask": SUBTASK, "plan": "Move right and down. Gripper stays open."}
    model.write(
        PROMPTS["short"].fill(name, **words),
        [seen.images["top"]],
        temperature=0.0,
        top_p=1.0,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        seed=0,
    )


def _observation() -> Observation:
    return Observation(
        images={"top": np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)},
        image_stamps_s={"top": 0.0},
        joint_positions=np.array(robot_spec(ROBOT).home),
        instruction="Pick the card with the correct answer.",
        stamp_s=0.0,
    )
