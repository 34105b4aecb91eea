# SPDX-License-Identifier: Apache-2.0
"""Routers choose as Shazeer et al. say, static paths are exact, and routing information stays inside its block."""

import threading

import pytest
import torch
import torch.nn.functional as F
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig

from chatvla_policy.model.moe import MoeConfig, MoeMlp, Path, Routing, RoutingError, routing
from chatvla_policy.model.moe.losses import balance_loss, z_loss
from chatvla_policy.model.moe.router import Router

TEXT = Qwen2VLTextConfig(
    hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1
)


@pytest.fixture
def router():
    torch.manual_seed(0)
    return Router(width=32, experts=8, top_k=3, noisy=True, std=0.5)


@pytest.fixture
def hidden():
    return torch.randn(200, 32, generator=torch.Generator().manual_seed(1))


def layer(**fields):
    torch.manual_seed(0)
    return MoeMlp(TEXT, MoeConfig(**fields), 0).eval()


def test_gates_are_the_softmax_renormalised_over_the_chosen(router, hidden):
    chosen, gates, logits = router.eval()(hidden)
    everything = F.softmax(hidden @ router.weight.T, -1)
    wanted = everything.gather(1, chosen)
    torch.testing.assert_close(gates, wanted / wanted.sum(-1, keepdim=True))
    torch.testing.assert_close(gates.sum(-1), torch.ones(200))
    assert torch.equal(chosen, logits.topk(3).indices)


def test_noise_is_added_in_training_only(router, hidden):
    router.eval()
    assert torch.equal(router(hidden)[0], router(hidden)[0])
    router.train()
    assert not torch.equal(router(hidden)[0], router(hidden)[0])


def test_noise_scale_is_softplus_of_a_learned_product(hidden):
    """With K = E the gates give the scores back, but for a constant: noise has 7/8 of its variance left."""
    torch.manual_seed(0)
    router = Router(width=32, experts=8, top_k=8, noisy=True, std=0.5).train()
    same = hidden[:1].expand(20_000, -1)
    for product in (0.0, -2.0, 1.5):
        with torch.no_grad():
            router.noise_weight.copy_(product * same[:1] / same[0].square().sum())
        chosen, gates, logits = router(same)
        scores = torch.zeros_like(logits).scatter_(1, chosen, gates.log())
        noise = scores - logits - (scores - logits).mean(-1, keepdim=True)
        wanted = F.softplus(torch.tensor(product)) * (7 / 8) ** 0.5
        assert float(noise.detach().std()) == pytest.approx(float(wanted), rel=0.02)


def test_same_seed_gives_same_noise(router, hidden):
    router.train()
    torch.manual_seed(9)
    first = router(hidden)
    torch.manual_seed(9)
    assert all(torch.equal(a, b) for a, b in zip(first, router(hidden), strict=True))


def test_router_and_noise_scale_receive_gradients(hidden):
    mlp = layer().train()
    mlp(hidden[None]).square().sum().backward()
    assert float(mlp.router.weight.grad.abs().sum()) > 0
    assert float(mlp.router.noise_weight.grad.abs().sum()) > 0


def test_balance_loss_spans_one_to_the_number_of_experts():
    even = torch.arange(8).repeat(10)[:, None]
    assert float(balance_loss(torch.zeros(80, 8), even)) == pytest.approx(1.0)
    collapsed = torch.zeros(80, 8)
    collapsed[:, 3] = 50.0
    assert float(balance_loss(collapsed, torch.full((80, 1), 3))) == pytest.approx(8.0)


def test_balance_loss_pushes_towards_idle_experts():
    logits = torch.zeros(10, 4, requires_grad=True)
    balance_loss(logits, torch.zeros(10, 1, dtype=torch.long)).backward()
    assert float(logits.grad[:, 0].min()) > 0
    assert float(logits.grad[:, 1:].max()) < 0


def test_z_loss_is_the_squared_logsumexp():
    logits = torch.randn(6, 8)
    assert float(z_loss(logits)) == pytest.approx(float(torch.logsumexp(logits, -1).square().mean()))


def test_padding_counts_in_no_loss(hidden):
    mlp = layer(balance_weight=1.0, z_weight=0.1)
    valid = torch.ones(1, 200, dtype=torch.bool)
    valid[:, 150:] = False
    with routing(Routing(valid_BT=valid)) as padded:
        mlp(hidden[None])
    with routing() as alone:
        mlp(hidden[None, :150])
    torch.testing.assert_close(padded.loss(), alone.loss())


def test_loss_is_zero_when_off(hidden):
    with routing() as trace:
        layer()(hidden[None])
    assert float(trace.loss()) == 0.0


@pytest.mark.parametrize("path", list(Path))
def test_static_path_is_exactly_its_expert(hidden, path):
    mlp = layer(kind="static")
    with routing(Routing(path=path)):
        assert torch.equal(mlp(hidden[None])[0], mlp.static_experts[path](hidden))


def test_static_path_per_token_is_exact(hidden):
    mlp = layer(kind="static")
    path = torch.arange(200).remainder(2)[None]
    with routing(Routing(path=path)):
        found = mlp(hidden[None])[0]
    for number in Path:
        rows = path[0] == number
        torch.testing.assert_close(found[rows], mlp.static_experts[number](hidden[rows]), rtol=0, atol=1e-6)


def test_static_path_per_sample_of_a_mixed_batch(hidden):
    mlp = layer(kind="static")
    with routing(Routing(path=torch.tensor([1, 0]))):
        found = mlp(hidden.view(2, 100, 32))
    torch.testing.assert_close(found[0], mlp.static_experts[1](hidden[:100]), rtol=0, atol=1e-6)
    torch.testing.assert_close(found[1], mlp.static_experts[0](hidden[100:]), rtol=0, atol=1e-6)


def test_only_the_path_taken_learns(hidden):
    mlp = layer(kind="static").train()
    with routing(Routing(path=Path.CONTROL)):
        mlp(hidden[None]).sum().backward()
    assert all(weight.grad is None for weight in mlp.static_experts[Path.UNDERSTANDING].parameters())
    assert all(weight.grad is not None for weight in mlp.static_experts[Path.CONTROL].parameters())


@pytest.mark.parametrize(("kind", "fixed"), [("shared+dynamic", "shared_expert"), ("static+dynamic", "static_experts")])
def test_fixed_and_routed_outputs_mix_by_their_share(hidden, kind, fixed):
    mlp = layer(kind=kind, fixed_share=0.25)
    with routing(Routing(path=Path.CONTROL)):
        found = mlp(hidden[None])[0]
    part = getattr(mlp, fixed)
    fixed_output = (part[1] if fixed == "static_experts" else part)(hidden)
    routed_output = mlp._dynamic(hidden)
    torch.testing.assert_close(found, 0.25 * fixed_output + 0.75 * routed_output, rtol=0, atol=1e-6)


def test_path_of_a_wrong_shape_is_named(hidden):
    with (
        routing(Routing(path=torch.zeros(3, dtype=torch.long))),
        pytest.raises(RoutingError, match=r"\(3,\).*\(1, 200\)"),
    ):
        layer(kind="static")(hidden[None])


def test_unknown_path_number_is_refused():
    with pytest.raises(RoutingError, match=r"span 0\.\.5"):
        Routing(path=torch.tensor([0, 5]))


def test_blocks_do_not_leak(hidden):
    mlp = layer()
    with routing() as outer:
        mlp(hidden[None])
        with routing() as inner:
            mlp(hidden[None])
    mlp(hidden[None])
    assert len(outer.layers[0]) == len(inner.layers[0]) == 1


def test_threads_do_not_see_each_other(hidden):
    mlp = layer(kind="static")
    barrier = threading.Barrier(2)
    equal = {}

    def work(path):
        with routing(Routing(path=path)) as trace:
            barrier.wait()
            found = [torch.equal(mlp(hidden[None])[0], mlp.static_experts[path](hidden)) for _ in range(50)]
            equal[path] = all(found) and len(trace.layers[0]) == 50

    threads = [threading.Thread(target=work, args=(path,)) for path in Path]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal == dict.fromkeys(Path, True)


def test_gradient_checkpointing_routes_the_same_and_records_once(upcycled, padded_prompt):
    valid = padded_prompt.attention_mask.bool()
    path = torch.tensor([0, 1, 1], device=valid.device)
    grads = []
    for checkpointing in (False, True):
        model = upcycled(kind="static+dynamic", different=True, router_std=0.5).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(4)
        with routing(Routing(path=path, valid_BT=valid)) as trace:
            loss = model(**padded_prompt.inputs(), use_cache=False).logits[valid].square().mean()
        loss.backward()
        assert all(len(records) == 1 for records in trace.layers.values())
        grads.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6, msg=name)


def test_autocast_leaves_the_choice_as_it_is():
    router = Router(width=32, experts=4, top_k=2, noisy=True, std=0.02)
    torch.nn.init.normal_(router.noise_weight)
    hidden = torch.randn(9, 32, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    wanted = router(hidden)
    torch.manual_seed(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = router(hidden)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
