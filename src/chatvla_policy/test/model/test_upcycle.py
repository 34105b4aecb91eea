# SPDX-License-Identifier: Apache-2.0
"""A mixture made from a dense model computes what the dense model computes."""

from pathlib import Path as FilePath

import pytest
import torch

from chatvla_policy.model.backbone import BackboneError, load_backbone
from chatvla_policy.model.moe import MoeConfig, MoeKind, Path, Routing, routing
from chatvla_policy.model.tiny import make_tiny_folder
from chatvla_policy.model.upcycle import average_experts, upcycle, upcycle_backbone


def logits(model, prompt, path=Path.UNDERSTANDING):
    with torch.no_grad(), routing(Routing(path=path, valid_BT=prompt.attention_mask)):
        return model(**prompt.inputs()).logits[prompt.attention_mask.bool()]


@pytest.mark.parametrize("top_k", range(1, 9))
def test_upcycled_equals_dense_whatever_top_k(upcycled, dense, image_prompt, top_k, tolerance):
    wanted = logits(dense, image_prompt)
    found = logits(upcycled(top_k=top_k), image_prompt)
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * float(wanted.std()))


@pytest.mark.parametrize("kind", list(MoeKind))
@pytest.mark.parametrize("path", list(Path))
def test_upcycled_equals_dense_whatever_kind(upcycled, dense, padded_prompt, kind, path, tolerance):
    wanted = logits(dense, padded_prompt)
    found = logits(upcycled(kind=kind, experts=4), padded_prompt, path)
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * float(wanted.std()))


def test_upcycled_equals_dense_in_training_mode_with_noise(dense, image_prompt, tolerance):
    model = upcycle_backbone(dense, MoeConfig()).train()
    wanted = logits(dense, image_prompt)
    torch.testing.assert_close(logits(model, image_prompt), wanted, rtol=0, atol=tolerance * float(wanted.std()))


@pytest.mark.parametrize("kind", list(MoeKind))
def test_streamed_folder_equals_the_one_made_in_memory(folder, dense, tmp_path, kind):
    moe = MoeConfig(kind=kind, experts=3)
    made = load_backbone(upcycle(folder, moe, tmp_path / "out", seed=5, shard_bytes=300_000), device=dense.device)
    wanted = upcycle_backbone(dense, moe, seed=5).state_dict()
    assert made.moe_config.kind == kind
    assert made.state_dict().keys() == wanted.keys()
    assert all(torch.equal(made.state_dict()[name], value) for name, value in wanted.items())


def test_tokenizer_and_image_processor_come_along(folder, tmp_path):
    out = upcycle(folder, MoeConfig(), tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_existing_target_is_left_alone(folder, tmp_path):
    with pytest.raises(BackboneError, match="exists already"):
        upcycle(folder, MoeConfig(), tmp_path)


def test_mixture_is_not_upcycled_twice(folder, tmp_path):
    once = upcycle(folder, MoeConfig(), tmp_path / "once")
    with pytest.raises(BackboneError, match="mixture of kind dynamic already"):
        upcycle(once, MoeConfig(), tmp_path / "twice")


def test_average_of_copies_is_the_dense_model_again(upcycled, dense):
    found, wanted = average_experts(upcycled()).state_dict(), dense.state_dict()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=0)


def test_average_of_experts_that_differ_is_their_mean(upcycled):
    mixture = upcycled(experts=3, different=True)
    found, states = average_experts(mixture), mixture.state_dict()
    name = "model.language_model.layers.1.mlp.{}up_proj.weight"
    experts = [states[name.format(f"experts.{number}.")] for number in range(3)]
    torch.testing.assert_close(found.state_dict()[name.format("")], sum(experts) / 3)
    assert found.moe_config.kind == MoeKind.DENSE


@pytest.mark.parametrize("kind", [kind for kind in MoeKind if kind != MoeKind.DYNAMIC])
def test_only_routed_experts_are_averaged(upcycled, kind):
    with pytest.raises(BackboneError, match="only the experts of a dynamic mixture"):
        average_experts(upcycled(kind=kind))


def test_nothing_is_left_after_a_failure(folder, tmp_path):
    source = make_tiny_folder(tmp_path / "source")
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="truncated"):
        upcycle(source, MoeConfig(), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_memory_does_not_grow_with_the_result(tmp_path):
    """Streams a result of 100 MB: the process's peak rises by less than a third of it."""
    source = make_tiny_folder(tmp_path / "source", size="tiny", layers=8)
    before = reset_peak_bytes()
    out = upcycle(source, MoeConfig(experts=12), tmp_path / "out")
    result_bytes = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    assert result_bytes > 100e6
    assert peak_bytes() - before < result_bytes / 3


def reset_peak_bytes():
    """Make the kernel forget this process's memory peak; return what is in use now."""
    clear = FilePath("/proc/self/clear_refs")
    if not clear.exists():
        pytest.skip("memory peaks are read from Linux's /proc")
    clear.write_text("5")
    return peak_bytes()


def peak_bytes():
    line = next(line for line in FilePath("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
