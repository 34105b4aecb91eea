# SPDX-License-Identifier: Apache-2.0
"""Router statistics count what was routed, in the authors' terms."""

import math

import numpy as np
import pytest
import torch

from chatvla_control.contracts import InputKind
from chatvla_policy.model.decode import Decoder
from chatvla_policy.model.introspection import ExpertTraffic, router_stats, token_routing, traffic
from chatvla_policy.model.moe import Path, Routing, routing

# Layer 0 of the authors' table (OpenReview, Table 1).
LAYER_0 = np.array([[384, 735, 434, 981, 151, 883, 332, 228]])


def forward(model, prompt, path=Path.UNDERSTANDING):
    with torch.no_grad(), routing(Routing(path=path, valid_BT=prompt.attention_mask)) as trace:
        model(**prompt.inputs())
    return trace


def test_figures_of_the_authors_table():
    counted = ExpertTraffic(kind=InputKind.ROBOT, top_k=2, counts_LE=LAYER_0)
    share = LAYER_0[0] / LAYER_0.sum()
    summary = counted.summary()
    assert summary.entropy_bits == pytest.approx(-sum(p * math.log2(p) for p in share))
    assert summary.entropy_bits == pytest.approx(2.77, abs=0.01)
    assert summary.top_ratio == pytest.approx(981 / 151)
    assert summary.std_tokens == pytest.approx(np.std(LAYER_0))
    assert counted.tokens == LAYER_0.sum() // 2
    assert counted.table().splitlines()[1].split() == ["0", *map(str, LAYER_0[0])]


def test_padding_is_not_counted(mixture, padded_prompt):
    stats = router_stats(forward(mixture, padded_prompt), kind=InputKind.UNDERSTANDING, stamp_s=1.0)
    assert stats.tokens == int(padded_prompt.attention_mask.sum())
    np.testing.assert_allclose(stats.load.sum(-1), 1.0, rtol=1e-6)
    assert stats.load.shape == (mixture.config.text_config.num_hidden_layers, 8)


def test_each_token_has_its_experts_and_gates(mixture, image_prompt):
    trace = forward(mixture, image_prompt)
    routed = token_routing(trace)
    tokens, layers = image_prompt.input_ids.shape[1], mixture.config.text_config.num_hidden_layers
    assert routed.chosen_LNK.shape == routed.gates_LNK.shape == (layers, tokens, 2)
    np.testing.assert_allclose(routed.gates_LNK.sum(-1), 1.0, rtol=1e-5)
    assert bool((routed.chosen_LNK[..., 0] != routed.chosen_LNK[..., 1]).all())


def test_decoding_counts_prompt_and_every_generated_token(mixture, image_prompt):
    decoder = Decoder(mixture)
    with routing() as trace:
        state = decoder.prefill(
            image_prompt.input_ids, pixel_values=image_prompt.pixel_values, image_grid_thw=image_prompt.image_grid_thw
        )
        decoder.generate(state, max_new_tokens=5, stop_ids=())
    counted = traffic(trace, kind=InputKind.ROBOT)
    assert counted.tokens == image_prompt.input_ids.shape[1] + 5


def test_drift_is_the_total_variation_from_a_reference(mixture, image_prompt):
    trace = forward(mixture, image_prompt)
    own = router_stats(trace, kind=InputKind.ROBOT, stamp_s=0.0).load
    np.testing.assert_allclose(
        router_stats(trace, kind=InputKind.ROBOT, stamp_s=0.0, reference_LE=own).drift, 0.0, atol=1e-6
    )
    one = np.zeros_like(own)
    one[:, 0] = 1.0
    drift = router_stats(trace, kind=InputKind.ROBOT, stamp_s=0.0, reference_LE=one).drift
    np.testing.assert_allclose(drift, 1.0 - own[:, 0], atol=1e-6)


def test_idle_expert_makes_the_ratio_infinite():
    counted = ExpertTraffic(kind=InputKind.ROBOT, top_k=1, counts_LE=np.array([[3, 0]]))
    assert counted.stats(stamp_s=0.0).top_ratio.tolist() == [math.inf]
    assert counted.summary().entropy_bits == 0.0


def test_specialisation_shows_between_kinds_of_input(upcycled, image_prompt):
    model = upcycled(kind="static")
    understanding = traffic(forward(model, image_prompt, Path.UNDERSTANDING), kind=InputKind.UNDERSTANDING)
    robot = traffic(forward(model, image_prompt, Path.CONTROL), kind=InputKind.ROBOT)
    drift = robot.stats(stamp_s=0.0, reference_LE=understanding.load_LE()).drift
    assert drift.tolist() == [1.0] * len(drift)


def test_traffic_adds_up_and_kinds_never_mix(mixture, image_prompt, padded_prompt):
    total = ExpertTraffic(kind=InputKind.ROBOT)
    for prompt in (image_prompt, padded_prompt):
        total.add(traffic(forward(mixture, prompt), kind=InputKind.ROBOT))
    assert total.tokens == int(image_prompt.attention_mask.sum() + padded_prompt.attention_mask.sum())
    with pytest.raises(ValueError, match="UNDERSTANDING"):
        total.add(traffic(forward(mixture, image_prompt), kind=InputKind.UNDERSTANDING))


def test_dense_model_has_no_statistics(dense, image_prompt):
    assert router_stats(forward(dense, image_prompt), kind=InputKind.ROBOT, stamp_s=0.0) is None
