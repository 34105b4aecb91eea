# SPDX-License-Identifier: Apache-2.0
"""Expert traffic: exact counts, the authors' figures, both kinds of input of a real checkpoint."""

import json

import numpy as np
import pytest

from chatvla_control.contracts import InputKind, RouterStats
from chatvla_eval.cli import main
from chatvla_eval.demonstrations import DEMONSTRATION_NOTE, DEMONSTRATION_WARNING
from chatvla_eval.router.command import write
from chatvla_eval.router.traffic import counted, drift


def stats(counts, top_k=2):
    counts = np.array(counts)
    load = (counts / counts.sum(-1, keepdims=True)).astype(np.float32)
    nothing = np.zeros(len(counts), np.float32)
    tokens = int(counts[0].sum()) // top_k
    return RouterStats(
        stamp_s=0.0,
        kind=InputKind.ROBOT,
        top_k=top_k,
        tokens=tokens,
        load=load,
        entropy_bits=nothing,
        top_ratio=nothing,
    )


def test_counts_come_back_exactly_and_add_up():
    rng = np.random.default_rng(0)
    parts = [np.stack([rng.multinomial(1000, np.ones(8) / 8) for _ in range(3)]) for _ in range(20)]
    found = counted(InputKind.ROBOT, [stats(part) for part in parts])
    assert found is not None
    np.testing.assert_array_equal(found.counts_LE, sum(parts))
    assert found.to_dict()["tokens"] == 10_000


def test_figures_of_even_and_uneven_loads():
    even, uneven = (counted(InputKind.ROBOT, [stats(c)]) for c in ([[10, 10, 10, 10]], [[20, 20, 0, 0]]))
    assert even is not None
    assert uneven is not None
    assert even.to_dict()["mean"] == {"entropy_bits": 2.0, "most_bits": 2.0, "top_ratio": 1.0, "std": 0.0}
    assert uneven.to_dict()["mean"] == {"entropy_bits": 1.0, "most_bits": 2.0, "top_ratio": None, "std": 10.0}
    assert drift(even, uneven) == [0.5]
    assert counted(InputKind.ROBOT, [None]) is None


def test_scenes_of_the_demonstrations_are_named(tmp_path, capsys):
    words = ["--policy", str(tmp_path), "--split", "in_domain", "--trials", "1", "--out", str(tmp_path / "out")]
    for seed, warned in (("4", 1), ("5", 0)):
        assert main(["router", *words, "--seed", seed]) == 1
        assert capsys.readouterr().err.count(DEMONSTRATION_WARNING) == warned


def test_figures_are_there_only_once_plots_and_pages_are(tmp_path):
    part = counted(InputKind.ROBOT, [stats([[10, 10, 10, 10]])])
    assert part is not None
    model = {"when": "after", "policy": "p", "kinds": {"robot": part.to_dict()}, "drift_between_kinds": None}
    results = {"paper": "p", "commit": "c", "demonstration_scenes": True, "models": [model]}
    obstacle = tmp_path / "router_after_robot.svg"
    obstacle.mkdir()
    with pytest.raises(OSError, match=obstacle.name):
        write(tmp_path, results)
    assert not (tmp_path / "router.json").exists()
    obstacle.rmdir()
    assert DEMONSTRATION_NOTE in write(tmp_path, results)
    # Who has the old file open keeps it whole: the new one took its place by a rename.
    with (tmp_path / "router.json").open() as before:
        assert DEMONSTRATION_NOTE not in write(tmp_path, results | {"demonstration_scenes": False})
        assert json.load(before) == results


@pytest.mark.slow
def test_both_kinds_before_and_after(tmp_path, capsys):
    from chatvla_policy.systems.untrained import save_untrained

    save_untrained(tmp_path / "random", robot="arx_r5", max_tokens=8)
    words = ["--policy", str(tmp_path / "random"), "--before", str(tmp_path / "random"), "--trials", "2"]
    assert main(["router", *words, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "router.json").read_text())
    assert (found["seed"], found["split"], found["demonstration_scenes"]) == (100, "open_world", False)
    for model in found["models"]:
        assert {kind: part["inputs"] for kind, part in model["kinds"].items()} == {"understanding": 2, "robot": 2}
        for part in model["kinds"].values():
            assert {sum(row) for row in part["counts"]} == {part["tokens"] * part["top_k"]}
    assert set(found["drift_of_training"]["robot"]) == {0.0}
    assert (tmp_path / "out" / "router_after_robot.svg").read_text().startswith("<svg")
    page = capsys.readouterr().out
    assert "2.79 of 3.0 bits" in page
    assert "## random, after fine-tuning, robot inputs (simulation)" in page
