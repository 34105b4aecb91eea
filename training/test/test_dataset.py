# SPDX-License-Identifier: Apache-2.0
"""The data set on disk: what goes in comes out, whole or not at all, and LeRobot opens it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chatvla_training.data.assemble import assemble
from chatvla_training.data.displacement import Displacement
from chatvla_training.data.episodes import DatasetError, EpisodeDataset
from chatvla_training.data.keyframes import keyframe_rows
from chatvla_training.data.record import (
    EpisodeRecord,
    RecordError,
    decode_image,
    encode_image,
    load_record,
    save_record,
)

JOINTS = ("a", "b", "c")
VIEWS = {"top": (24, 32)}
LEROBOT_CHECK = Path(__file__).parent / "open_with_lerobot.py"


def make_record(seed: int, rows: int = 23, every: int = 5, views: dict[str, tuple[int, int]] = VIEWS) -> EpisodeRecord:
    rng = np.random.default_rng(seed)
    frame_rows = np.arange(0, rows, every)
    greys = [(seed * 40 + k) % 256 for k in range(len(frame_rows))]
    return EpisodeRecord(
        instruction=f"task {seed % 2}",
        rate_hz=50.0,
        states=rng.normal(size=(rows, 3)).astype(np.float32),
        actions=rng.normal(size=(rows, 3)).astype(np.float32),
        frame_rows=frame_rows,
        frames={
            view: [encode_image(np.full((*size, 3), grey, np.uint8), codec="png") for grey in greys]
            for view, size in views.items()
        },
        reasoning=[f"thought {seed}.{k}" for k in range(len(frame_rows))],
        facts={"seed": seed, "equation": "3+4"},
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    paths = []
    for seed in range(4):
        path = folder / f"{seed}.npz"
        save_record(make_record(seed), path)
        paths.append(path)
    out = folder / "set"
    assemble(paths, out, robot="test", joint_names=JOINTS, provenance={"seed": 0}, validation_share=0.25)
    return out


def test_record_survives_the_disk(tmp_path: Path):
    record = make_record(1)
    save_record(record, tmp_path / "r.npz")
    again = load_record(tmp_path / "r.npz")
    assert np.array_equal(again.states, record.states)
    assert list(again.frames["top"]) == list(record.frames["top"])
    assert list(again.reasoning) == list(record.reasoning)
    assert again.facts == record.facts


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("frame_rows", np.array([1, 5]), "start at row 0"),
        ("reasoning", ["one"], "one a frame"),
        ("states", np.full((23, 3), np.nan, np.float32), "NaN"),
        ("actions", np.zeros((22, 3), np.float32), "alike"),
    ],
)
def test_record_refuses_what_does_not_fit(field, value, says):
    fields = {**make_record(0).__dict__, field: value}
    with pytest.raises(RecordError, match=says):
        EpisodeRecord(**fields)


def test_samples_are_the_recorded_rows(dataset: Path):
    data = EpisodeDataset(dataset, horizon=8)
    assert data.joint_names == JOINTS
    assert data.views == ("top",)
    assert len(data) == 3 * 5
    record = make_record(1)
    sample = data.sample(5 + 2, draw=0)
    assert np.array_equal(sample.state, record.states[10])
    assert np.array_equal(sample.actions, record.actions[10:18])
    assert sample.reasoning == "thought 1.2"
    assert sample.instruction == "task 1"
    assert np.array_equal(sample.images["top"], decode_image(record.frames["top"][2]))
    assert sample.valid.all()


def test_chunk_past_the_end_is_marked(dataset: Path):
    data = EpisodeDataset(dataset, horizon=8)
    record = make_record(0)
    sample = data.sample(4, draw=0)
    assert sample.valid.tolist() == [True] * 3 + [False] * 5
    assert np.array_equal(sample.actions[:3], record.actions[20:23])
    assert np.array_equal(sample.actions[3:], np.repeat(record.actions[22:23], 5, 0))
    assert EpisodeDataset(dataset, horizon=8, after_end=True).sample(4, draw=0).valid.all()


def test_keyframes_are_where_a_gripper_begins_to_move_and_where_episodes_end():
    opening = np.full((12, 2), 0.08)
    opening[3:7, 0] = 0.01  # The first episode grasps at row 3 and lets go at row 7.
    opening[10:, 1] = 0.0  # The second, rows 9 to 11, ends with the other hand closed.
    rows = keyframe_rows(opening, np.array([9, 12]))
    assert rows.tolist() == [3, 3, 3, 7, 7, 7, 7, 8, 8, 10, 11, 11]
    still = keyframe_rows(np.full((5, 1), 0.04), np.array([2, 5]))
    assert still.tolist() == [1, 1, 4, 4, 4]


def test_sample_carries_the_targets_at_its_keyframe(dataset: Path):
    data = EpisodeDataset(dataset, horizon=8)
    assert np.array_equal(data.sample(6, draw=0).keyframe, make_record(1).actions[-1])


def test_validation_split_holds_other_episodes(dataset: Path):
    data = EpisodeDataset(dataset, split="val", horizon=8)
    assert len(data) == 5
    assert data.sample(0, draw=0).reasoning == "thought 3.0"
    assert data.facts(data.episode_of(0))["seed"] == 3
    with pytest.raises(DatasetError, match="there are: train, val"):
        EpisodeDataset(dataset, split="test", horizon=8)


def test_wording_follows_the_draw(dataset: Path):
    data = EpisodeDataset(dataset, horizon=2, wording=lambda facts, text, draw: f"{facts['equation']} {text} {draw}")
    assert data.sample(0, draw=7).reasoning == "3+4 thought 0.0 7"


def test_repeated_frames_are_stored_once(dataset: Path):
    data = dataset / "data/chunk-000/file-000.parquet"
    frames = sum(len(image) for seed in range(4) for image in make_record(seed).frames["top"])
    assert data.stat().st_size < 2 * frames + 20_000


def test_each_camera_has_its_own_size(tmp_path: Path):
    save_record(make_record(0, views={"top": (24, 32), "wrist": (36, 64)}), tmp_path / "0.npz")
    assemble([tmp_path / "0.npz"], tmp_path / "set", robot="test", joint_names=JOINTS, provenance={})
    data = EpisodeDataset(tmp_path / "set", horizon=8)
    images = data.sample(0, draw=0).images
    assert images["wrist"].shape == (36, 64, 3)
    for view, image in images.items():
        assert data.info["features"][f"observation.images.{view}"]["shape"] == list(image.shape)


def test_existing_folder_is_never_overwritten(dataset: Path, tmp_path: Path):
    with pytest.raises(FileExistsError, match="exists already"):
        assemble([tmp_path / "x"], dataset, robot="test", joint_names=JOINTS, provenance={})


def test_statistics_are_those_of_the_rows(dataset: Path):
    stats = json.loads((dataset / "meta/stats.json").read_text())
    actions = np.concatenate([make_record(seed).actions for seed in range(4)])
    assert np.allclose(stats["action"]["mean"], actions.mean(0), atol=1e-6)
    assert np.allclose(stats["action"]["q99"], np.quantile(actions, 0.99, axis=0), atol=1e-6)
    assert np.array(stats["observation.images.top"]["mean"]).shape == (3, 1, 1)


def test_lerobot_opens_it(dataset: Path):
    python = os.environ.get("CHATVLA_LEROBOT_PYTHON")
    if python is None and importlib.util.find_spec("lerobot") is None:
        pytest.skip("lerobot is not installed; name a Python that has it in CHATVLA_LEROBOT_PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "_ROS", "LD_"))}
    done = subprocess.run(
        [python or sys.executable, str(LEROBOT_CHECK), str(dataset)],
        env=environment | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    record = make_record(1)
    assert seen["episodes"] == 4
    assert seen["frames"] == 4 * 23
    assert seen["task"] == "task 1"
    assert seen["reasoning"] == "thought 1.2"
    assert np.allclose(seen["action"], record.actions[12:14])
    assert seen["image"] == [3, 24, 32]
    assert abs(seen["pixel"] - 42 / 255) < 1e-6


def test_a_displaced_sample_begins_elsewhere_and_ends_where_it_was_going() -> None:
    rotary = (True, True, False)
    displacement = Displacement(sigma_rad=0.05, rotary=rotary, step_period_s=0.02)
    state, actions = np.zeros(3, np.float32), np.tile(np.linspace(0, 1, 50, dtype=np.float32)[:, None], 3)
    moved = [displacement(state, actions, draw) for draw in range(400)]
    offsets = np.array([start for start, _ in moved])
    assert 50 < sum(not start.any() for start, _ in moved) < 120  # a fifth stays
    assert not offsets[:, 2].any()
    assert offsets[offsets[:, 0] != 0][:, :2].std() == pytest.approx(0.05, rel=0.15)
    for start, targets in moved:
        np.testing.assert_allclose(targets[0], start, atol=1e-6)
        np.testing.assert_array_equal(targets[15:], actions[15:])
        assert np.abs(np.diff(targets - actions, axis=0)).max() < 0.02
    again = displacement(state, actions, 7)
    assert all(np.array_equal(one, other) for one, other in zip(again, moved[7], strict=True))
