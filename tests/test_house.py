# SPDX-License-Identifier: Apache-2.0
"""Style: ruff, pyright, licence lines, module docstrings and file lengths."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HARD_LINE_LIMIT = 350
FOLDERS = ("src", "launch", "training", "tests", "benchmarks", "requirements")


def python_files() -> list[Path]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in [*files, ROOT / "conftest.py"] if path.stat().st_size)


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The Python files that git would commit: scratch files of an editor do not count."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return python_files()
    done = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split() if (ROOT / name).is_file() and (ROOT / name).stat().st_size]


def test_ruff_finds_nothing(tracked: list[Path]) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", *map(str, tracked)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_are_formatted(tracked: list[Path]) -> None:
    command = [sys.executable, "-m", "ruff", "format", "--no-cache", "--check", *map(str, tracked)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_pyright_finds_nothing() -> None:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "npm" in done.stderr and "error" in done.stderr.lower() and not done.stdout.strip():
        pytest.skip("pyright's own download of node did not work here")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_files_carry_the_licence(tracked: list[Path]) -> None:
    bare = [path for path in tracked if "SPDX-License-Identifier: Apache-2.0" not in path.read_text()[:200]]
    assert not bare


def test_modules_say_what_they_are(tracked: list[Path]) -> None:
    modules = [path for path in tracked if path.name != "setup.py" and "test" not in path.parts]
    assert not [path for path in modules if ast.get_docstring(ast.parse(path.read_text())) is None]


def test_files_are_short(tracked: list[Path]) -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in tracked}
    assert not {path: length for path, length in lengths.items() if length > HARD_LINE_LIMIT}


def test_python_packages_are_typed() -> None:
    packages = [path.parent for path in (ROOT / "src").glob("*/*/__init__.py")]
    assert packages
    assert not [package for package in packages if package.name != "test" and not (package / "py.typed").is_file()]


def test_apt_packages_have_a_reason() -> None:
    lines = (ROOT / "requirements" / "apt.txt").read_text().splitlines()
    assert all(line.startswith("#") or len(line.split()) >= 3 for line in lines if line.strip())


def test_no_subscription_has_a_depth_of_one(tracked: list[Path]) -> None:
    """At that depth the middleware leaks under large messages of two senders (chatvla_control/ros/qos.py)."""
    found: list[str] = []
    for path in tracked:
        if "src" not in path.parts or "test" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            if called != "create_subscription" or not isinstance(node, ast.Call) or len(node.args) < 4:
                continue
            qos = ast.unparse(node.args[3])
            if qos == "1" or "depth=1)" in qos:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found
