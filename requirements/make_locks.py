# SPDX-License-Identifier: Apache-2.0
"""Resolve requirements/*.in into requirements/py311.lock and py312.lock. Needs `uv`; downloads no package.

A lock file pins everything, also what is needed only indirectly, in layers: each package stands in the first layer that
needs it. torch is pinned without its CUDA packages; those are the layer `cuda`, for machines that use that build.
A line `name==version  # alone` in an .in file is pinned without what it says it needs: only its data files are used.
Versions already in a lock are kept unless `--upgrade` is given.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

LAYERS = ("ros", "build", "core", "model", "dev")
FOLDER = Path(__file__).resolve().parent
ALONE = "# alone"
CUDA_PREFIXES = ("cuda-", "nvidia-", "triton")


def resolve(inputs: list[Path], python: str, constraints: Path) -> dict[str, str]:
    """Return version by package for `inputs` and all they need, on `python` ("3.11"), within `constraints`."""
    command = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", f"--python-version={python}"]
    command += ["--python-platform=x86_64-unknown-linux-gnu", f"--constraints={constraints}", *map(str, inputs)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"uv could not resolve for Python {python}:\n{done.stderr}")
    pins = (line.split(" ;")[0].strip() for line in done.stdout.splitlines() if "==" in line)
    return dict(pin.split("==") for pin in pins)


def lock_text(python: str, old: Path, *, upgrade: bool) -> str:
    """Return the lock file for `python`."""
    with tempfile.TemporaryDirectory() as folder:
        inputs: dict[str, Path] = {}
        alone: dict[str, dict[str, str]] = {}
        for layer in LAYERS:
            wanted = (FOLDER / f"{layer}.in").read_text().splitlines()
            pins = [line.removesuffix(ALONE).strip() for line in wanted if line.endswith(ALONE)]
            alone[layer] = dict(pin.split("==") for pin in pins)
            inputs[layer] = Path(folder) / f"{layer}.in"
            inputs[layer].write_text("\n".join(line for line in wanted if not line.endswith(ALONE)))
        constraints = Path(folder) / "constraints.txt"
        keep = old.read_text() if old.is_file() and not upgrade else ""
        constraints.write_text("\n".join(line for line in keep.splitlines() if line and not line.startswith("#")))
        everything = resolve(list(inputs.values()), python, constraints)
        constraints.write_text("\n".join(f"{name}=={version}" for name, version in everything.items()))
        lines = [f"# Python {python} on x86_64 Linux. Made by requirements/make_locks.py from requirements/*.in."]
        placed: set[str] = set()
        for layer in LAYERS:
            pins = resolve([inputs[layer]], python, constraints) | alone[layer]
            new = sorted(name for name in pins if name not in placed)
            placed.update(new)
            cuda = [name for name in new if name.startswith(CUDA_PREFIXES)]
            lines += ["", f"# layer: {layer}", *(f"{name}=={pins[name]}" for name in new if name not in cuda)]
            if cuda:
                lines += ["", "# layer: cuda", *(f"{name}=={pins[name]}" for name in cuda)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for version in ("3.11", "3.12"):
        target = FOLDER / f"py{version.replace('.', '')}.lock"
        target.write_text(lock_text(version, target, upgrade="--upgrade" in sys.argv))
        print(f"wrote {target}")
