# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: exact round trips, saves that never leave half a folder, and refusals that name the first mismatch."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chatvla_policy.checkpoint import Checkpoint, CheckpointError, RobotSetup, load_checkpoint, save_checkpoint
from chatvla_policy.checkpoint import folder as folder_module
from chatvla_policy.checkpoint.atomic import ReplaceError
from chatvla_policy.checkpoint.files import MANIFEST, write_manifest
from chatvla_policy.model.moe import MoeConfig
from chatvla_policy.model.tiny import make_tiny_folder
from chatvla_policy.systems.untrained import save_untrained


@pytest.fixture
def checkpoint(small_model, world) -> Checkpoint:
    return world.checkpoint(small_model(moe=MoeConfig(experts=2, top_k=1)))


@pytest.fixture
def saved(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model", checkpoint)
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit_json(folder: Path, name: str, change: Callable[[dict], None]) -> None:
    """Change a JSON file and sign the folder anew, as someone who means harm would."""
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))
    resign(folder)


def resign(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    write_manifest(folder)


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    resign(folder)


def test_round_trip_is_bit_exact(checkpoint: Checkpoint, saved: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(saved)
    ours, theirs = checkpoint.model.state_dict(), loaded.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    assert (loaded.model.config, loaded.robots) == (checkpoint.model.config, checkpoint.robots)
    assert loaded.provenance == {"commit": "test"}
    again = save_checkpoint(tmp_path / "again", loaded)
    assert contents(tmp_path / "again") == contents(saved)
    assert again == loaded.sha256


def test_every_file_is_as_readable_as_the_others(tmp_path: Path) -> None:
    save_untrained(tmp_path / "untrained", robot="arx_r5")
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "untrained").iterdir() if path.is_file()}
    assert "golden.safetensors" in modes
    assert len(set(modes.values())) == 1


def test_loaded_model_computes_the_same(checkpoint: Checkpoint, saved: Path, world) -> None:
    batch = world.batcher(checkpoint.model.config)(world.samples[:2])
    results = [
        model.eval()(batch, generator=torch.Generator().manual_seed(0)).total()
        for model in (checkpoint.model, load_checkpoint(saved).model)
    ]
    assert torch.equal(*results)


def test_tied_embeddings_stay_one_weight(saved: Path) -> None:
    backbone = load_checkpoint(saved).model.backbone
    assert backbone.lm_head.weight is backbone.get_input_embeddings().weight
    assert "backbone.lm_head.weight" not in load_file(saved / "model.safetensors")


def test_mixed_storage_keeps_the_robots_layers_exact(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "mixed", checkpoint, storage="mixed")
    stored = load_checkpoint(tmp_path / "mixed").model.state_dict()
    for name, value in checkpoint.model.state_dict().items():
        exact = name.startswith("expert.robots.")
        assert stored[name].dtype == (torch.float32 if exact else torch.bfloat16)
        assert torch.equal(stored[name], value if exact else value.bfloat16())


def test_bf16_storage_rounds_once_and_then_stays(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "half", checkpoint, storage="bfloat16")
    loaded = load_checkpoint(tmp_path / "half")
    for name, weight in checkpoint.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight.bfloat16())
    save_checkpoint(tmp_path / "again", load_checkpoint(tmp_path / "half", dtype=torch.float32), storage="bfloat16")
    assert contents(tmp_path / "again") == contents(tmp_path / "half")


def test_shards_load_as_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "shards", checkpoint, shard_bytes=200_000)
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    loaded = load_checkpoint(tmp_path / "shards")
    assert all(
        torch.equal(weight, loaded.model.state_dict()[name]) for name, weight in checkpoint.model.state_dict().items()
    )


def test_save_replaces_an_earlier_checkpoint_at_once(checkpoint: Checkpoint, saved: Path) -> None:
    save_checkpoint(saved, replace(checkpoint, provenance={"commit": "second"}))
    assert load_checkpoint(saved).provenance == {"commit": "second"}
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_failed_save_leaves_the_earlier_checkpoint_untouched(checkpoint: Checkpoint, saved: Path) -> None:
    before = contents(saved)
    with torch.no_grad():
        checkpoint.model.queries_QV[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="weight queries_QV holds NaN or infinity"):
        save_checkpoint(saved, checkpoint)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_interrupted_save_leaves_no_folder(checkpoint: Checkpoint, tmp_path: Path, monkeypatch) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_module, "write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "new", checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_other_peoples_folder_is_not_replaced(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ReplaceError, match=r"holds other files and no manifest\.json"):
        save_checkpoint(tmp_path, checkpoint)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "statistics.json", "processor/tokenizer.json"])
def test_changed_byte_is_noticed(saved: Path, name: str) -> None:
    data = bytearray((saved / name).read_bytes())
    data[-2] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name} is not the file that was saved"):
        load_checkpoint(saved)


def test_truncated_file_is_noticed(saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors has \d+ bytes, manifest\.json says \d+"):
        load_checkpoint(saved)
    resign(saved)
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "robot_spec.json", "processor/tokenizer.json"])
def test_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_checkpoint(saved)


def test_link_is_refused(saved: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_bytes((saved / "config.json").read_bytes())
    (saved / "config.json").unlink()
    (saved / "config.json").symlink_to(outside)
    with pytest.raises(CheckpointError, match=r"config\.json is a link"):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b/c", "processor/../../x", ".hidden", "model\n.json"])
def test_path_outside_the_folder_is_refused(saved: Path, name: str) -> None:
    data = json.loads((saved / MANIFEST).read_text())
    data["files"].append({"name": name, "size": 1, "sha256": "0" * 64})
    (saved / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="is no plain file name in the folder"):
        load_checkpoint(saved)


def test_giant_header_is_refused(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    resign(saved)
    with pytest.raises(CheckpointError, match="no whole header"):
        load_checkpoint(saved)


def test_pickle_is_never_opened(saved: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (saved.parent / "exploded",))

    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    (saved / "modeling.py").write_text("raise SystemExit")
    resign(saved)
    load_checkpoint(saved)
    assert not (saved.parent / "exploded").exists()
    (saved / "model.safetensors").unlink()
    resign(saved)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle, which is never loaded"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("queries_QV"), "lacks weight queries_QV"),
        (lambda w: w.update(extra=torch.zeros(2)), "has weight extra, which this model does not"),
        (
            lambda w: w.update(queries_QV=torch.zeros(3, 3)),
            r"shape \(3, 3\), config.json needs \(4, 64\)",
        ),
        (
            lambda w: w.update(queries_QV=torch.zeros(4, 64, dtype=torch.int64)),
            "has type int64; known: float32",
        ),
        (lambda w: w["queries_QV"].fill_(float("inf")), "queries_QV holds NaN or infinity"),
    ],
)
def test_weight_that_does_not_fit_is_named(saved: Path, change: Callable, message: str) -> None:
    edit_weights(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", lambda d: d.update(surprise=1), "config has an unknown field 'surprise'"),
        ("config.json", lambda d: d.pop("images"), "config lacks the field 'images'"),
        ("config.json", lambda d: d["action"].update(width="64"), "config.action.width is '64', expected int"),
        ("config.json", lambda d: d["action"].update(conditioning="magic"), "conditioning is 'magic'; there are"),
        ("config.json", lambda d: d["moe"].update(top_k=9), "top_k is 9"),
        (
            "config.json",
            lambda d: d["backbone"]["text"].update(depth=10**9),
            r"depth is 1000000000, must lie in 1\.\.1024",
        ),
        ("config.json", lambda d: d["backbone"]["text"].update(heads=0), "language model's heads is 0, must lie in 1"),
        ("config.json", lambda d: d["backbone"]["text"].update(kv_heads=0), "kv_heads is 0, must lie in 1"),
        ("config.json", lambda d: d["backbone"]["text"].update(mrope_section=[-2, 5, 5]), "mrope_section"),
        ("config.json", lambda d: d["backbone"]["vision"].update(heads=0), "vision tower's heads is 0, must lie in 1"),
        ("config.json", lambda d: d["backbone"]["vision"].update(heads=3), "must be a multiple of four times its 3"),
        ("config.json", lambda d: d["backbone"]["vision"].update(width=-8), "width is -8, must lie in 1"),
        ("config.json", lambda d: d.update(action_loss_weight=10**400), "a number of 401 digits, which no float holds"),
        ("config.json", lambda d: d.update(max_reasoning_tokens=0), "max_reasoning_tokens is 0, must lie in 1"),
        ("config.json", lambda d: d["images"].update(std=[0, 0, 0]), "images have std .* must be positive"),
        ("config.json", lambda d: d["action"].update(queries=5), "has shape"),
        ("config.json", lambda d: d["backbone"].update(image_token=1), "the model's image token 1"),
        (
            "statistics.json",
            lambda d: d.update(spot=d.pop("arx_r5")),
            r"\['arx_r5'\], statistics.json \['spot'\]",
        ),
        ("statistics.json", lambda d: d["arx_r5"]["state"]["mean"].pop(), "mean has 13 values for 14 names"),
        ("statistics.json", lambda d: d["arx_r5"]["action"].update(method="mean_std"), "one standard deviation about"),
        ("statistics.json", lambda d: d["arx_r5"]["action"]["names"].reverse(), "action statistics name right_gripper"),
        ("robot_spec.json", lambda d: d["arx_r5"]["spec"].pop("home"), "robot spec does not fit"),
        ("robot_spec.json", lambda d: d["arx_r5"]["chunks"].update(mode="TELEPORT"), "mode 'TELEPORT'"),
        ("robot_spec.json", lambda d: d["arx_r5"]["chunks"].update(cameras=[]), "has no camera"),
    ],
)
def test_document_that_does_not_fit_is_named(saved: Path, name: str, change: Callable, message: str) -> None:
    edit_json(saved, name, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


def test_an_expert_that_does_not_clip_may_be_normalised_by_mean_std(small_model, world, tmp_path: Path) -> None:
    checkpoint = world.checkpoint(small_model(clip_sample=False))
    statistics = replace(world.statistics, action=replace(world.statistics.action, method="mean_std"))
    robots = (replace(checkpoint.robots[0], statistics=statistics),)
    save_checkpoint(tmp_path / "unclipped", replace(checkpoint, robots=robots))
    assert load_checkpoint(tmp_path / "unclipped").robots == robots


@pytest.mark.parametrize(
    "text",
    ["", "[1", "{}", "[]", '{"format": 99, "files": []}', "[" * 100_000, pytest.param("9" * 5000, id="9s")],
)
def test_broken_manifest_is_refused(saved: Path, text: str) -> None:
    (saved / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError):
        load_checkpoint(saved)


def test_foreign_qwen2vl_folder_is_recognised(tmp_path: Path) -> None:
    folder = make_tiny_folder(tmp_path / "qwen")
    with pytest.raises(CheckpointError, match=r"looks like a transformers checkpoint .* make one from it"):
        load_checkpoint(folder)


def test_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no folder"):
        load_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        load_checkpoint(tmp_path)


def test_setup_whose_statistics_name_other_joints_is_refused(world) -> None:
    state = replace(world.statistics.state, names=tuple(reversed(world.spec.joint_names)))
    with pytest.raises(CheckpointError, match="state statistics name right_gripper"):
        RobotSetup(spec=world.spec, cameras=("top",), statistics=replace(world.statistics, state=state))
