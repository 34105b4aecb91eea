# SPDX-License-Identifier: Apache-2.0
"""Every way of running experts equals the plain reference, forward and backward."""

import pytest
import torch
from torch import nn
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP

from chatvla_policy.model.moe import MoeConfig, MoeKind, MoeMlp
from chatvla_policy.model.moe.experts import (
    grouped_experts,
    pack_experts,
    reference_experts,
    run_experts,
    single_token_experts,
    sliced_experts,
)

WIDTH, INNER, EXPERTS = 32, 48, 8
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def make(tokens, top_k, dtype, seed=0):
    torch.manual_seed(seed)
    config = Qwen2VLTextConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1
    )
    experts = nn.ModuleList(Qwen2MLP(config) for _ in range(EXPERTS)).to(dtype)
    hidden = torch.randn(tokens, WIDTH, dtype=dtype, requires_grad=True)
    gates, chosen = torch.randn(tokens, EXPERTS).softmax(-1).topk(top_k)
    gates = (gates / gates.sum(-1, keepdim=True)).detach().requires_grad_()
    return hidden, chosen, gates, experts


def assert_near(found, wanted, dtype):
    limit = TOLERANCE[dtype] * max(1.0, float(wanted.detach().float().abs().max()))
    torch.testing.assert_close(found.float(), wanted.float(), rtol=0, atol=limit)


CASES = [(run_experts, n) for n in (1, 2, 7, 64)] + [(sliced_experts, n) for n in (1, 64)] + [(single_token_experts, 1)]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("top_k", [1, 2, 8])
@pytest.mark.parametrize(("way", "tokens"), CASES)
def test_forward_and_gradients_equal_the_reference(way, tokens, top_k, dtype):
    hidden, chosen, gates, experts = make(tokens, top_k, dtype)
    weight = torch.randn(tokens, WIDTH, dtype=dtype)
    results = []
    for run in (way, reference_experts):
        output = run(hidden, chosen, gates, experts)
        assert output.dtype == dtype
        grads = torch.autograd.grad((output * weight).sum(), [hidden, gates, *experts.parameters()], allow_unused=True)
        results.append((output, grads))
    assert_near(results[0][0], results[1][0], dtype)
    for found, wanted in zip(results[0][1], results[1][1], strict=True):
        assert_near(torch.zeros_like(wanted) if found is None else found, wanted, dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("tokens", [1, 5, 64])
def test_grouped_product_over_packed_weights_equals_the_reference(tokens, dtype):
    hidden, chosen, gates, experts = make(tokens, 2, dtype)
    with torch.no_grad():
        wanted = reference_experts(hidden, chosen, gates, experts)
        packed = pack_experts(list(experts))
        assert_near(grouped_experts(hidden, chosen, gates, list(experts), packed), wanted, dtype)
        assert_near(run_experts(hidden, chosen, gates, list(experts), packed), wanted, dtype)


def test_packed_parameters_are_views_of_the_packed_weights():
    _, _, _, experts = make(1, 2, torch.float32)
    packed = pack_experts(list(experts))
    with torch.no_grad():
        experts[3].up_proj.weight.fill_(2.0)
    assert bool((packed.gate_up_EFD[3, INNER:] == 2.0).all())


def test_gradients_under_autocast_equal_the_reference():
    hidden, chosen, gates, experts = make(20, 2, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sliced_experts(hidden, chosen, gates, experts)
        wanted = reference_experts(hidden, chosen, gates, experts)
    assert_near(found, wanted, torch.bfloat16)


@pytest.mark.parametrize("tokens", [1, 20])
def test_under_autocast_the_sum_has_the_type_of_what_experts_say(tokens):
    hidden, chosen, gates, experts = make(tokens, 2, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run_experts(hidden, chosen, gates, experts)
        assert found.dtype == experts[0](hidden).dtype == torch.bfloat16
        assert_near(found, reference_experts(hidden, chosen, gates, experts), torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 64])
def test_a_gpu_joins_fixed_and_routed_experts_under_autocast(tokens):
    config = Qwen2VLTextConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1
    )
    layer = MoeMlp(config, MoeConfig(kind=MoeKind.SHARED_DYNAMIC), 0).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert layer(torch.randn(1, tokens, WIDTH, device="cuda")).isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 64])
def test_grouped_product_on_a_gpu_equals_the_reference(tokens):
    hidden, chosen, gates, experts = make(tokens, 2, torch.bfloat16)
    hidden, chosen, gates, experts = hidden.cuda(), chosen.cuda(), gates.cuda(), experts.cuda()
    with torch.no_grad():
        wanted = reference_experts(hidden, chosen, gates, experts)
        packed = pack_experts(list(experts))
        assert_near(run_experts(hidden, chosen, gates, list(experts), packed), wanted, torch.bfloat16)
