# SPDX-License-Identifier: Apache-2.0
"""`./chatvla` itself: help, unknown verbs, and that what needs no environment makes none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def chatvla(*words: str, root: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(root / "chatvla"), *words], capture_output=True, text=True, env={**os.environ, **env})


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout without an environment."""
    root = tmp_path / "checkout"
    root.mkdir()
    shutil.copy(ROOT / "chatvla", root)
    for folder in ("src/chatvla_cli", "requirements", "benchmarks"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_help_lists_the_verbs(words: tuple[str, ...]) -> None:
    done = chatvla(*words)
    assert done.returncode == 0
    for verb in ("launch", "test", "bench"):
        assert f"\n  {verb} " in done.stdout


def test_unknown_verb_names_the_nearest() -> None:
    done = chatvla("lanch")
    assert done.returncode == 2
    assert "did you mean 'launch'" in done.stderr


def test_a_verb_without_its_code_is_not_listed(bare: Path) -> None:
    text = chatvla(root=bare).stdout
    assert "launch" in text
    assert "\n  eval " not in text
    assert chatvla("eval", root=bare).returncode == 2


@pytest.mark.parametrize("verb", ["launch", "test", "setup"])
def test_help_of_a_verb_makes_no_environment(bare: Path, verb: str) -> None:
    done = chatvla(verb, "--help", root=bare)
    assert done.returncode == 0
    assert f"./chatvla {verb}" in done.stdout
    assert not (bare / ".venv").exists()


def test_runs_through_a_symbolic_link(bare: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bare / "chatvla")
    done = subprocess.run([str(link)], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0
    assert "Usage: ./chatvla VERB" in done.stdout


@pytest.mark.parametrize("name", ["my robots", "a:b", "it's"])
def test_folder_that_colcon_does_not_take_is_refused_at_once(bare: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    bare.rename(place)
    done = subprocess.run([place / "chatvla", "setup"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "do not take the character" in done.stderr
    assert "move the folder" in done.stderr
    assert not (place / ".venv").exists()


def test_a_wrong_python_is_named(bare: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "python3"
    wrong.write_text("#!/bin/sh\nexit 1\n")
    wrong.chmod(0o755)
    done = chatvla(root=bare, CHATVLA_PYTHON=str(wrong))
    assert done.returncode == 1
    assert "no Python 3.11 or 3.12 found" in done.stderr


def test_an_unreachable_index_is_the_networks_fault(bare: Path) -> None:
    done = chatvla(
        "setup",
        root=bare,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_RETRIES="0",
        PIP_CONFIG_FILE=os.devnull,
        PIP_FIND_LINKS="",
        PIP_EXTRA_INDEX_URL="",
    )
    assert done.returncode == 4
    assert "the network is at fault" in done.stderr
    assert "127.0.0.1:9" in done.stderr
