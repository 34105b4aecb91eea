# SPDX-License-Identifier: Apache-2.0
"""What comes with the package: whole, small, and of the system that its name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatvla_policy.systems import SHIPPED, checkpoint_folder, load_policy, shipped_names, system_of

MEGABYTES = {
    "tiny": 30,
    "tiny_base": 15,
    "tiny_chatvla1": 15,
    "tiny_toys": 30,
    "tiny_toys_base": 15,
    "tiny_vlm2vla": 15,
}
SYSTEM = {"tiny": "chatvla2", "tiny_chatvla1": "chatvla1", "tiny_toys": "chatvla2", "tiny_vlm2vla": "vlm2vla"}


def files_of(name: str) -> list[Path]:
    return [path for path in (SHIPPED / name).rglob("*") if path.is_file()]


def test_every_checkpoint_that_ships_is_looked_at() -> None:
    assert set(shipped_names()) == set(MEGABYTES)


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_checkpoint_is_small_and_names_no_place_of_the_machine_that_made_it(name: str) -> None:
    assert sum(path.stat().st_size for path in files_of(name)) < 1e6 * MEGABYTES[name]
    for path in files_of(name):
        assert path.suffix in (".json", ".safetensors", ".jinja")
        if path.suffix != ".safetensors":
            text = path.read_text(encoding="utf-8")
            assert "/home/" not in text
            assert "/tmp/" not in text


def test_folder_of_a_shipped_name_that_is_no_checkpoint_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert checkpoint_folder("tiny") == SHIPPED / "tiny"
    (tmp_path / "tiny" / "manifest.json").write_text("{}")
    assert checkpoint_folder("tiny") == Path("tiny")


@pytest.mark.parametrize("name", [name for name in shipped_names() if name in SYSTEM])
def test_shipped_policy_loads_and_answers(name: str) -> None:
    assert system_of(name) == SYSTEM[name]
    policy = load_policy(name)
    assert policy.name == name
    assert not policy.privileged
    assert isinstance(policy.ask("What is 3+4?"), str)
