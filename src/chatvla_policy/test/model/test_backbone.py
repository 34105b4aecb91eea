# SPDX-License-Identifier: Apache-2.0
"""The backbone computes what transformers' Qwen2-VL computes, and its folders load or say why not."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLForConditionalGeneration

from chatvla_policy.model.backbone import BackboneError, load_backbone, read_config, save_backbone
from chatvla_policy.model.moe import MoeConfig, MoeConfigError, MoeKind
from chatvla_policy.model.tensor_files import TensorFileError
from chatvla_policy.model.tiny import make_tiny_folder


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_dense_logits_equal_transformers(dense, transformers_model, prompt, tolerance):
    with torch.no_grad():
        wanted = transformers_model(**prompt.inputs()).logits
        found = dense(**prompt.inputs()).logits
    valid = prompt.attention_mask.bool()
    torch.testing.assert_close(found[valid], wanted[valid], rtol=0, atol=tolerance * float(wanted.std()))


def test_patches_are_embedded_as_by_transformers_convolution_gradient_and_all(dense, transformers_model):
    ours, theirs = dense.model.visual.patch_embed, transformers_model.model.visual.patch_embed
    patches_PX = torch.randn(12, ours.proj.weight[0].numel(), device=dense.device)
    grown = []
    for embed in (ours, theirs):
        embed.proj.weight.grad = None
        out = embed(patches_PX)
        out.sin().sum().backward()
        grown.append((out, embed.proj.weight.grad))
        embed.proj.weight.grad = None
    for found, wanted in zip(*grown, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_transformers_loads_what_we_save(dense, tmp_path):
    save_backbone(dense, tmp_path, shard_bytes=100_000 if dense.config.text_config.hidden_size < 100 else 10**9)
    loaded, report = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight.to(dense.device), dense.state_dict()[name]), name


@pytest.mark.parametrize("kind", list(MoeKind))
def test_every_kind_survives_a_round_trip(kind, tmp_path):
    folder = make_tiny_folder(tmp_path, moe=MoeConfig(kind=kind), shard_bytes=200_000)
    first = load_backbone(folder)
    save_backbone(first, tmp_path / "again")
    second = load_backbone(tmp_path / "again")
    assert second.moe_config == first.moe_config == MoeConfig(kind=kind)
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_loading_converts_dtype_on_request(folder):
    model = load_backbone(folder, dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


def test_plain_transformers_refuses_a_mixture_instead_of_drawing_its_mlps(tmp_path):
    from transformers import AutoConfig

    folder = make_tiny_folder(tmp_path, moe=MoeConfig())
    with pytest.raises(ValueError, match="chatvla_qwen2_vl"):
        AutoConfig.from_pretrained(folder)


def test_foreign_folder_is_refused_by_its_model_type(copy):
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, "model_type": "llama"}))
    with pytest.raises(BackboneError, match=r"model_type 'llama'.*'qwen2_vl'"):
        load_backbone(copy)


def test_folder_without_config_is_refused(tmp_path):
    with pytest.raises(BackboneError, match=r"no config\.json"):
        load_backbone(tmp_path)


def test_unknown_name_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="neither a folder nor a hub name"):
        load_backbone(str(tmp_path / "nothing"))


def test_truncated_shard_is_named(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(TensorFileError, match=r"model\.safetensors.*truncated"):
        load_backbone(copy)


def test_shard_cut_inside_its_header_is_named(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(TensorFileError, match=r"model\.safetensors has 50 bytes"):
        load_backbone(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.layers.0.mlp.up_proj.weight"), r"lacks model\.layers\.0\.mlp\.up_proj\.weight"),
        (lambda w: w.update(extra=torch.zeros(2)), r"holds extra, which this model has no place for"),
        (lambda w: w.update({"model.norm.weight": torch.zeros(3)}), r"model\.norm\.weight has shape \(3,\)"),
        (lambda w: w.update({"model.norm.weight": w["model.norm.weight"].to(torch.int32)}), "dtype int32"),
    ],
    ids=["missing key", "unknown key", "wrong shape", "wrong dtype"],
)
def test_first_mismatch_is_named(copy, change, message):
    weights = load_file(copy / "model.safetensors")
    change(weights)
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(BackboneError, match=message):
        load_backbone(copy)


def test_missing_shard_is_named(dense, tmp_path):
    save_backbone(dense, tmp_path, shard_bytes=10**5)
    next(tmp_path.glob("model-00002-*")).unlink()
    with pytest.raises(TensorFileError, match=r"model-00002-of-.* is missing"):
        load_backbone(tmp_path)


def test_shard_outside_the_folder_is_refused(dense, tmp_path):
    save_backbone(dense, tmp_path, shard_bytes=10**5)
    index = tmp_path / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"]["lm_head.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(values))
    with pytest.raises(TensorFileError, match="not a plain file name"):
        load_backbone(tmp_path)


def test_pickles_are_never_loaded(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(TensorFileError, match=r"pytorch_model\.bin is a pickle"):
        load_backbone(copy)


def test_code_in_the_folder_is_never_run(copy):
    values = json.loads((copy / "config.json").read_text())
    values["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (copy / "config.json").write_text(json.dumps(values))
    (copy / "evil.py").write_text(f"open({str(copy / 'ran')!r}, 'w')\n")
    load_backbone(copy)
    assert not (copy / "ran").exists()


def test_unknown_mixture_field_is_named(tmp_path):
    folder = make_tiny_folder(tmp_path, moe=MoeConfig())
    values = json.loads((folder / "config.json").read_text())
    values["moe"]["tok_k"] = 2
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(MoeConfigError, match="unknown key 'tok_k'"):
        read_config(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "sparse"}, "known kinds: dense, dynamic, static"),
        ({"experts": 0}, "experts is 0"),
        ({"top_k": 9}, r"top_k is 9; it must lie in 1\.\.8"),
        ({"fixed_share": 1.5}, "fixed_share is 1.5"),
        ({"z_weight": float("nan")}, "z_weight is nan"),
    ],
)
def test_impossible_mixture_is_refused(fields, message):
    with pytest.raises(MoeConfigError, match=message):
        MoeConfig(**fields)
