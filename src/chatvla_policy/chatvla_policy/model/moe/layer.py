# SPDX-License-Identifier: Apache-2.0
"""Put a mixture of experts in the place of one language MLP (ChatVLA-2, section 3.2; Table 3's variants).

    dynamic          y = sum_k gate_k * expert_k(x)
    static           y = static_{path}(x)
    static+dynamic   y = s * static_{path}(x) + (1 - s) * sum_k gate_k * expert_k(x)
    shared+dynamic   y = s * shared(x)        + (1 - s) * sum_k gate_k * expert_k(x)
with s = `fixed_share`. All weights of one token sum to 1, so that experts which are copies of one MLP equal that MLP.
Departure: the papers do not say how fixed and routed outputs are joined; a plain sum would double the MLP at step 0.
Legend: B batch, T tokens, N = B * T, D width, K chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP, Qwen2VLDecoderLayer

from chatvla_policy.model.moe.config import MoeConfig, MoeKind, Path
from chatvla_policy.model.moe.experts import PackedExperts, pack_experts, run_experts
from chatvla_policy.model.moe.router import Router
from chatvla_policy.model.moe.routing import LayerRouting, active, flat_path, scope

__all__ = ["MoeDecoderLayer", "MoeMlp"]


class MoeMlp(nn.Module):
    """A mixture of transformers' own Qwen2MLP."""

    def __init__(self, text: Qwen2VLTextConfig, moe: MoeConfig, layer_index: int) -> None:
        """Make the experts that `moe` asks for, each with the shape of `text`'s MLP."""
        super().__init__()
        self.moe = moe
        self.layer_index = layer_index
        self.packed: PackedExperts | None = None
        if moe.routed:
            self.router = Router(
                width=text.hidden_size, experts=moe.experts, top_k=moe.top_k, noisy=moe.noisy, std=moe.router_std
            )
            self.experts = nn.ModuleList(Qwen2MLP(text) for _ in range(moe.experts))
        if moe.static:
            self.static_experts = nn.ModuleList(Qwen2MLP(text) for _ in Path)
        if moe.kind is MoeKind.SHARED_DYNAMIC:
            self.shared_expert = Qwen2MLP(text)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Return the mixture's output, shape (B, T, D); routes and records by the active `routing` block."""
        batch, tokens, width = hidden_BTD.shape
        hidden_ND = hidden_BTD.reshape(batch * tokens, width)
        fixed_ND = None
        if self.moe.static:
            fixed_ND = self._static(hidden_ND, batch, tokens)
        elif self.moe.kind is MoeKind.SHARED_DYNAMIC:
            fixed_ND = self.shared_expert(hidden_ND)
        if not self.moe.routed:
            assert fixed_ND is not None
            return fixed_ND.view(batch, tokens, -1)
        output_ND = self._dynamic(hidden_ND)
        if fixed_ND is not None:
            output_ND = torch.lerp(output_ND, fixed_ND, self.moe.fixed_share)
        return output_ND.view(batch, tokens, -1)

    def pack(self) -> None:
        """Join the routed experts' weights for inference on a GPU; the Parameters become views."""
        if self.moe.routed:
            self.packed = pack_experts(list(self.experts))  # pyright: ignore[reportArgumentType]

    def _dynamic(self, hidden_ND: Tensor) -> Tensor:
        chosen_NK, gates_NK, logits_NE = self.router(hidden_ND)
        self._record(chosen_NK, gates_NK, logits_NE)
        return run_experts(hidden_ND, chosen_NK, gates_NK, self.experts, self.packed)  # pyright: ignore[reportArgumentType]

    def _static(self, hidden_ND: Tensor, batch: int, tokens: int) -> Tensor:
        context = active()
        path = flat_path(context.routing.path if context else Path.UNDERSTANDING, batch, tokens)
        if not self.moe.routed and context is not None and context.trace is not None:
            chosen_N = path if isinstance(path, Tensor) else hidden_ND.new_full((len(hidden_ND),), path)
            self._record(chosen_N.long()[:, None], hidden_ND.new_ones((len(hidden_ND), 1)).float(), None)
        if isinstance(path, Path):
            return self.static_experts[path](hidden_ND)
        output_ND: Tensor | None = None
        for number, expert in enumerate(self.static_experts):
            rows_M = (path == number).nonzero()[:, 0]
            if len(rows_M) or torch.is_grad_enabled():
                part_MD = expert(hidden_ND[rows_M])
                output_ND = part_MD.new_zeros(hidden_ND.shape) if output_ND is None else output_ND
                output_ND = output_ND.index_copy(0, rows_M, part_MD)
        assert output_ND is not None
        return output_ND

    def _record(self, chosen_NK: Tensor, gates_NK: Tensor, logits_NE: Tensor | None) -> None:
        context = active()
        if context is None or context.trace is None:
            return
        valid_BT = context.routing.valid_BT
        record = LayerRouting(
            chosen_NK=chosen_NK,
            gates_NK=gates_NK,
            logits_NE=logits_NE,
            valid_N=None if valid_BT is None else valid_BT.reshape(-1).bool(),
        )
        context.trace.config = self.moe
        context.trace.layers.setdefault(self.layer_index, []).append(record)


class MoeDecoderLayer(Qwen2VLDecoderLayer):
    """transformers' own decoder layer with a mixture as its MLP."""

    def __init__(self, config: Qwen2VLTextConfig, moe: MoeConfig, layer_index: int) -> None:
        """Make the layer; its dense MLP is replaced at once."""
        super().__init__(config, layer_index)
        self.mlp = MoeMlp(config, moe, layer_index)

    def __call__(self, hidden_BTD: Tensor, **kwargs: object) -> Tensor:
        """Run the layer, handing the caller's routing block to a second forward of gradient checkpointing too."""
        return super().__call__(hidden_BTD, routing_block=active(), **kwargs)

    def forward(self, hidden_BTD: Tensor, routing_block: object = None, **kwargs: object) -> Tensor:  # pyright: ignore
        """Return the layer's output, shape (B, T, D)."""
        with scope(routing_block):  # pyright: ignore[reportArgumentType]
            return super().forward(hidden_BTD, **kwargs)  # pyright: ignore[reportArgumentType]
