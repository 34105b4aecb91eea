# SPDX-License-Identifier: Apache-2.0
"""Measure reasoning given against reasoning written, and denoising with shared modulations; on a GPU the 2B/H model.

- Reasoning: tiny size, random weights, one 320x240 image; from image to the states of reasoning and action tokens,
  with the text given (forced and reused take the same way) against 40 tokens decoded. `chunk` goes on to the end of
  denoising, which costs the same in both.
- Denoising: a 50x14 chunk, size L, bfloat16, 10 steps, one thread; modulations of all steps at once against step by
  step, and against the bare matrix products that the shared form cannot do without.
- On a GPU: time per decoded token against the bytes it must read over the measured bandwidth; chunk latencies.
Times are the least of interleaved runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from chatvla_policy.model.action import ActionExpert, Embodiment, ReasoningTokens, action_size
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_policy.model.config import chatvla2_config
from chatvla_policy.model.decode import Decoder
from chatvla_policy.model.moe import Path, Routing, routing
from chatvla_policy.model.tiny import make_tiny_tokenizer
from chatvla_policy.processing.images import ImagePreparer
from chatvla_policy.processing.prompts import robot_prompt
from chatvla_policy.processing.tokens import TextCodec

__all__ = ["device_figures", "measure"]

ROBOT = Embodiment(name="arx_r5", state_width=14, action_width=14, horizon=50)
TOKENS = 40
DEVICE_TOKENS = 45
INSTRUCTION = "Answer the question and pick the card with the correct answer."


def measure() -> dict[str, dict[str, Any]]:
    """Return the figures; takes about a minute on one core, and a few more where there is a GPU."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = {**_reasoning(), **_denoising()}
    if torch.cuda.is_available():
        figures |= device_figures(size="qwen2vl_2b", device=torch.device("cuda"), dtype=torch.bfloat16)
    return figures


def _figure(value: float, bar: float | None, better: str = "lower", unit: str = "ratio") -> dict[str, Any]:
    return {"value": round(value, 3), "unit": unit, "bar": bar, "better": better}


@dataclass(frozen=True)
class _Inference:
    """The steps of one inference of a random model, so that the number of decoded tokens can be set."""

    model: ChatVLA2
    codec: TextCodec
    tokens: int

    def prepared(self) -> tuple[Tensor, Any]:
        """Return prompt ids and patches of one camera image, as the policy makes them."""
        frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
        images = ImagePreparer(self.model.config.images)([frame])
        prompt = robot_prompt(self.codec, INSTRUCTION, image_tokens=images.tokens)
        return torch.tensor([prompt.ids], device=self.device), images

    @property
    def device(self) -> torch.device:
        return self.model.queries_QV.device

    def language(self, *, given: bool) -> tuple[Tensor, int]:
        """Return the states of reasoning and action tokens, with the text given or decoded."""
        decoder = Decoder(self.model.backbone)
        ids_1T, images = self.prepared()
        queries_1QV = self.model.queries_QV[None]
        pixels = {"pixel_values": images.pixel_values_PX.to(self.device), "image_grid_thw": images.grid_thw_N3}
        pixels["image_grid_thw"] = pixels["image_grid_thw"].to(self.device)
        with routing(Routing(path=Path.CONTROL)):
            if given:
                text_1L = torch.full((1, self.tokens), 7, device=self.device)
                state = decoder.prefill(torch.cat([ids_1T, text_1L], 1), tail_BND=queries_1QV, room=0, **pixels)
                return state.prompt_hidden_BTD[:, ids_1T.shape[1] :], self.tokens
            state = decoder.prefill(ids_1T, room=self.tokens + queries_1QV.shape[1], **pixels)
            made = decoder.generate(state, max_new_tokens=self.tokens, stop_ids=())
            rest_1QV = decoder.forward_embeds(state, queries_1QV)
        return torch.cat([made.hidden_BND, rest_1QV], 1), self.tokens

    def chunk(self, *, given: bool) -> Tensor:
        """Return a chunk, from camera image to the last denoising step."""
        hidden_1SV, written = self.language(given=given)
        valid_1L = torch.ones(1, written, dtype=torch.bool, device=self.device)
        reasoning = ReasoningTokens(hidden_BLV=hidden_1SV[:, :written], valid_BL=valid_1L)
        with torch.inference_mode():
            state_1Z = torch.zeros(1, ROBOT.state_width, device=self.device)
            conditions = self.model.expert.condition(ROBOT.name, hidden_1SV[:, written:], state_1Z, reasoning)
            return self.model.expert.sample(ROBOT.name, conditions, generator=torch.Generator().manual_seed(0))


def _reasoning() -> dict[str, dict[str, Any]]:
    """Return the time with the text given over the time with 40 tokens decoded, for the reasoning and for the chunk."""
    inference = _inference("tiny", tokens=TOKENS)
    language = _least({given: lambda given=given: inference.language(given=given) for given in (True, False)}, runs=12)
    whole = _least({given: lambda given=given: inference.chunk(given=given) for given in (True, False)}, runs=12)
    return {
        "given_over_fresh_reasoning": _figure(language[True] / language[False], 0.35),
        "given_over_fresh_chunk": _figure(whole[True] / whole[False], None),
    }


def _inference(size: str, *, tokens: int, action: str | None = None) -> _Inference:
    """Return a model of random weights on the CPU."""
    codec = TextCodec(Tokenizer.from_str(make_tiny_tokenizer().backend_tokenizer.to_str()))
    small = size in ("micro", "tiny")
    config = chatvla2_config(size, embodiments=(ROBOT,), codec=codec if small else None, action=action)
    if not small:
        # The real sizes bring no tokenizer here: keep the tiny one's ids, which the vocabulary holds too.
        config = replace(config, backbone=replace(config.backbone, image_token=codec.image_id))
    model = ChatVLA2(config).eval()
    for parameter in model.expert.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return _Inference(model, codec, tokens)


def _denoising() -> dict[str, dict[str, Any]]:
    """Return denoising at size L: shared over per-step modulations, and over the bare products."""
    expert = ActionExpert(action_size("L", embodiments=(ROBOT,)), 1536).bfloat16().eval()
    for parameter in expert.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    shared, per_step = _samplers(expert)
    seconds = _least({"shared": shared, "per step": per_step, "bare": _bare_products(expert)}, runs=8)
    return {
        "denoise_shared_over_per_step": _figure(seconds["shared"] / seconds["per step"], 0.92),
        "denoise_shared_over_bare_products": _figure(seconds["shared"] / seconds["bare"], 1.15),
    }


def _samplers(expert: ActionExpert) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return sampling with shared and with per-step modulations, conditioned on random states."""
    device, width = expert.time.linear_in.weight.device, expert.observation.project.linear_in.in_features
    reasoning = ReasoningTokens(
        hidden_BLV=torch.randn(1, TOKENS, width, device=device),
        valid_BL=torch.ones(1, TOKENS, dtype=torch.bool, device=device),
    )
    tokens = torch.randn(1, expert.config.queries, width, device=device)
    noise = torch.randn(1, ROBOT.horizon, ROBOT.action_width, device=device)

    def sample(*, shared: bool) -> Tensor:
        with torch.inference_mode():
            conditions = expert.condition(
                ROBOT.name, tokens, torch.zeros(1, ROBOT.state_width, device=device), reasoning
            )
            return expert.sample(ROBOT.name, conditions, noise_BTA=noise, shared_modulations=shared)

    return (lambda: sample(shared=True)), (lambda: sample(shared=False))


def _bare_products(expert: ActionExpert) -> Callable[[], None]:
    """Return the matrix products of a sampling run and nothing else: layers, attention, modulations once."""
    steps, length, heads = expert.config.sample_steps, ROBOT.horizon, expert.config.heads
    blocks = list(expert.trunk.blocks)
    modulations = [block.modulation.weight for block in blocks]
    weights = [
        part.weight
        for block in blocks
        for part in (block.attention.qkv, block.attention.out, block.mlp_in, block.mlp_out)
    ]
    like = weights[0]
    inputs = {width: like.new_empty(length, width).normal_() for width in {weight.shape[1] for weight in weights}}
    levels = like.new_empty(steps, expert.config.width).normal_()
    query = like.new_empty(heads, length, expert.config.width // heads).normal_()
    key = query.transpose(1, 2).contiguous()

    def run() -> None:
        with torch.inference_mode():
            for weight in modulations:
                torch.mm(levels, weight.t())
            for _ in range(steps):
                for weight in weights:
                    torch.mm(inputs[weight.shape[1]], weight.t())
                for _ in blocks:
                    torch.matmul(torch.matmul(query, key), query)

    return run


def device_figures(
    *, size: str, device: torch.device, dtype: torch.dtype, action: str | None = None, runs: int = 10
) -> dict[str, dict[str, Any]]:
    """Return the figures of one model size with random weights on `device`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            inference = _inference(size, tokens=DEVICE_TOKENS, action=action)
    finally:
        torch.set_default_dtype(before)
    if device.type == "cuda":
        inference.model.backbone.pack_experts()
    shared, per_step = _samplers(inference.model.expert)
    seconds = _least(
        {
            "reused": lambda: inference.chunk(given=True),
            "fresh": lambda: inference.chunk(given=False),
            "language reused": lambda: inference.language(given=True),
            "language fresh": lambda: inference.language(given=False),
            "shared": shared,
            "per step": per_step,
        },
        runs=runs,
        device=device,
    )
    token_s = (seconds["language fresh"] - seconds["language reused"]) / DEVICE_TOKENS
    floor_s = _bytes_per_token(inference.model) / _bandwidth(device)
    return {
        "gpu_decoded_token": _figure(token_s * 1e3, None, unit="ms"),
        "gpu_decoded_token_over_floor": _figure(token_s / floor_s, None),
        "gpu_denoise_shared_over_per_step": _figure(seconds["shared"] / seconds["per step"], 0.75),
        "gpu_chunk_reused_reasoning": _figure(seconds["reused"] * 1e3, 1000 / 30, unit="ms"),
        "gpu_chunk_fresh_45_tokens": _figure(seconds["fresh"] * 1e3, 100.0, unit="ms"),
    }


def _bytes_per_token(model: ChatVLA2) -> int:
    """Return the bytes of weights that one decoded token must read: chosen experts only, vocabulary once."""
    moe, language = model.config.moe, model.backbone.model.language_model
    share = moe.top_k / moe.experts if moe.routed else 1.0
    total = 0.0
    for name, weight in language.layers.named_parameters():
        total += weight.numel() * weight.element_size() * (share if ".mlp.experts." in name else 1.0)
    head = model.backbone.lm_head.weight
    return int(total) + head.numel() * head.element_size()


def _bandwidth(device: torch.device) -> float:
    """Return bytes per second that a large copy reads and writes."""
    size = 2**30 if device.type == "cuda" else 2**26
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _least({"copy": lambda: target.copy_(source)}, runs=10, device=device)["copy"]


def _least(
    calls: dict[Any, Callable[[], object]], *, runs: int, device: torch.device | None = None
) -> dict[Any, float]:
    """Return each call's least time [s], run in turns after a warm-up.

    On the CPU it is the process's own time: what else runs on the machine hardly matters, with one thread.
    """
    on_gpu = device is not None and device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    least = dict.fromkeys(calls, float("inf"))
    for run in range(runs + 1):
        for name, call in calls.items():
            if on_gpu:
                torch.cuda.synchronize(device)
            start = clock()
            call()
            if on_gpu:
                torch.cuda.synchronize(device)
            if run:
                least[name] = min(least[name], clock() - start)
    return least
