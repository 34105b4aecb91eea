# SPDX-License-Identifier: Apache-2.0
"""Measure the mixture of experts, decoding and upcycling as ratios within one run on this CPU.

- Layer: one mixture layer at Qwen2-VL-2B's width against one dense MLP, float32, one thread, best of interleaved
  runs. The dense MLP changes from run to run, as it does from layer to layer in a model: its weights come from memory,
  not from a cache. Freed memory stays in the process for both (host_memory), as in training.
- Decoding: the tiny size, a short text prompt, 40 new tokens by our decoder and by transformers' `generate`.
- Upcycling: full 2B width with few layers (a longer model only makes the ratio smaller); peak of a process of its own
  over the bytes it wrote.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP

from chatvla_policy.model.backbone import hub_name, load_backbone, meta_backbone, write_config
from chatvla_policy.model.decode import Decoder
from chatvla_policy.model.moe import MoeConfig, MoeKind, MoeMlp
from chatvla_policy.model.sizes import qwen2vl_config
from chatvla_policy.model.tensor_files import PlannedTensor, write_shards
from chatvla_policy.model.tiny import make_tiny_folder
from chatvla_policy.runtime.host_memory import keep_freed_memory

__all__ = ["measure"]

TOKENS = 300
NEW_TOKENS = 40
UPCYCLE_LAYERS = int(os.environ.get("CHATVLA_BENCH_LAYERS", "2"))
UPCYCLE_CODE = """
import re, sys
from pathlib import Path
from chatvla_policy.model.moe import MoeConfig
from chatvla_policy.model.upcycle import upcycle
upcycle(sys.argv[1], MoeConfig(), sys.argv[2])
# Not getrusage: its peak starts at that of the process which started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""


def measure() -> dict[str, dict[str, Any]]:
    """Return the figures of the mixture, decoding and upcycling; takes about a minute and 6 GB of disk."""
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return {**_layer(), **_decoding(), **_upcycling()}


def _figure(value: float, bar: float, better: str, unit: str = "ratio") -> dict[str, Any]:
    return {"value": round(value, 3), "unit": unit, "bar": bar, "better": better}


def _layer() -> dict[str, dict[str, Any]]:
    text = qwen2vl_config("qwen2vl_2b", layers=1).text_config
    mixture = MoeMlp(text, MoeConfig(), 0)
    dense = [expert for expert in mixture.experts if isinstance(expert, Qwen2MLP)]
    turn = 0

    def next_dense() -> Qwen2MLP:
        nonlocal turn
        turn += 1
        return dense[turn % len(dense)]

    def train_step(layer: torch.nn.Module, hidden: torch.Tensor) -> None:
        layer.zero_grad(set_to_none=True)
        layer(hidden).sum().backward()

    mixture.eval()
    many, one = torch.randn(8, 1, TOKENS, text.hidden_size), torch.randn(8, 1, 1, text.hidden_size)
    with torch.no_grad():
        forward = _ratio(lambda k: mixture(many[k % 8]), lambda k: next_dense()(many[k % 8]), 8)
        single = _ratio(lambda k: mixture(one[k % 8]), lambda k: next_dense()(one[k % 8]), 120)
    mixture.train()
    # A dense MLP of its own: a mixture's experts hold each other's gradients alive.
    alone = Qwen2MLP(text)
    inputs = [hidden.detach().requires_grad_() for hidden in many]
    train = _ratio(lambda k: train_step(mixture, inputs[k % 8]), lambda k: train_step(alone, inputs[k % 8]), 4)
    return {
        "moe_layer_300_tokens": _figure(forward, 2.3, "lower"),
        "moe_layer_1_token": _figure(single, 2.05, "lower"),
        "moe_layer_forward_backward": _figure(train, 2.9, "lower"),
    }


def _decoding() -> dict[str, dict[str, Any]]:
    figures = {}
    for kind in (MoeKind.DYNAMIC, MoeKind.DENSE):
        with tempfile.TemporaryDirectory() as folder:
            model = load_backbone(make_tiny_folder(folder, size="tiny", moe=MoeConfig(kind=kind)))
        decoder = Decoder(model)
        ids = torch.randint(0, 400, (1, 8))
        limits = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": 10**6, "pad_token_id": 0}

        def ours(_: int, decoder: Decoder = decoder, ids: torch.Tensor = ids) -> torch.Tensor:
            return decoder.generate(decoder.prefill(ids), max_new_tokens=NEW_TOKENS, stop_ids=()).tokens_BN

        def theirs(_: int, model: Any = model, ids: torch.Tensor = ids, limits: Any = limits) -> torch.Tensor:
            return model.generate(input_ids=ids, **limits)[:, ids.shape[1] :]

        if not torch.equal(ours(0), theirs(0)):
            raise RuntimeError("our decoder and transformers' generate disagree: no speed to compare")
        name = "decode_over_generate" if kind is MoeKind.DYNAMIC else "decode_over_generate_dense"
        figures[name] = _figure(_ratio(theirs, ours, 12), 1.5, "higher")
    return figures


def _upcycling() -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as work:
        source, out = Path(work) / "dense", Path(work) / "mixture"
        _write_random(source)
        done = subprocess.run(
            [sys.executable, "-c", UPCYCLE_CODE, source, out], check=True, capture_output=True, text=True
        )
        result_bytes = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    unit = f"ratio (2B width, {UPCYCLE_LAYERS} of 28 layers, result {result_bytes / 1e9:.1f} GB)"
    return {"upcycle_peak_memory": _figure(int(done.stdout) / result_bytes, 1.15, "lower", unit)}


def _write_random(folder: Path) -> None:
    """Write a random dense checkpoint at 2B width, bfloat16, without ever holding it in memory."""
    folder.mkdir()
    config = qwen2vl_config("qwen2vl_2b", layers=UPCYCLE_LAYERS)
    dense = MoeConfig(kind=MoeKind.DENSE)
    block = memoryview(torch.randn(2**22).bfloat16().view(torch.uint8).numpy()).cast("B")

    def chunks(size: int) -> Iterator[memoryview]:
        for start in range(0, size, len(block)):
            yield block[: min(len(block), size - start)]

    tensors = [
        PlannedTensor(
            name=hub_name(name),
            dtype=torch.bfloat16,
            shape=tuple(tensor.shape),
            chunks=partial(chunks, 2 * tensor.numel()),
        )
        for name, tensor in meta_backbone(config, dense).state_dict().items()
        if name != "lm_head.weight"
    ]
    write_shards(folder, tensors)
    write_config(folder, config.to_dict(), dense)


def _ratio(first: Callable[[int], object], second: Callable[[int], object], runs: int) -> float:
    """Return the best time of `first` over that of `second`, run in turns after one warm-up each.

    Times are the process's own: what else runs on the machine hardly matters, and one thread is all there is.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + 1):
        for times, call in zip(seconds, (first, second), strict=True):
            start = time.process_time()
            call(run)
            times.append(time.process_time() - start)
    return min(seconds[0][1:]) / min(seconds[1][1:])
