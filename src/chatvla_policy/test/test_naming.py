# SPDX-License-Identifier: Apache-2.0
"""A policy goes by its folder's name, a trained one by its training's."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatvla_policy.naming import policy_name
from chatvla_policy.systems import load_policy
from chatvla_policy.systems.untrained import save_untrained


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("tiny", "tiny"),
        ("runs/tiny_stage2/policy", "tiny_stage2"),
        ("runs/tiny_stage2/policy/", "tiny_stage2"),
        ("runs/policy/policy", "policy"),
        ("runs/policy/other", "other"),
        ("/policy", "policy"),
    ],
)
def test_folder_called_policy_gives_the_name_above(folder: str, name: str) -> None:
    assert policy_name(folder) == name


def test_policy_of_the_folder_one_stands_in_and_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "policy").mkdir(parents=True)
    (tmp_path / "latest").symlink_to(tmp_path / "run" / "policy")
    monkeypatch.chdir(tmp_path / "run" / "policy")
    assert policy_name(".") == policy_name(tmp_path / "latest") == "run"


def test_loaded_policy_signs_with_the_name_of_its_training(tmp_path: Path) -> None:
    save_untrained(tmp_path / "mine" / "policy", robot="arx_r5", max_tokens=8)
    assert load_policy(tmp_path / "mine" / "policy").name == "mine"
