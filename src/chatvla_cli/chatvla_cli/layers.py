# SPDX-License-Identifier: Apache-2.0
"""Install the layers of a lock file into the environment, each once, and continue where an interruption stopped.

A lock file is a pip requirements file whose comment lines `# layer: NAME` cut it into layers. A layer is complete when
its stamp, a hash of what it should hold, is in the environment; the stamp is written last.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chatvla_cli.errors import BrokenEnvironmentError, BrokenNetworkError, ChatvlaError
from chatvla_cli.progress import Progress, run_logged

__all__ = ["Environment", "install_layer", "is_current", "layer_pins", "missing_layers", "pip_fault"]

CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
NETWORK_SIGNS = (
    "Retrying (Retry(",
    "NewConnectionError",
    "Max retries exceeded",
    "Temporary failure in name resolution",
    "ReadTimeoutError",
    "ConnectionResetError",
    "ConnectTimeoutError",
    "SSLError",
    "ProxyError",
    "HTTP error 5",
)
ROS_PROVIDES = frozenset({"catkin-pkg", "empy", "lark-parser", "numpy", "pyyaml", "setuptools"})
"""What a sourced ROS 2 brings in the versions its own packages were built with: never replaced."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where the environment is and what it stands on."""

    root: Path
    """The checkout."""
    venv: Path
    base_python: Path
    version: tuple[int, int]
    """Python's major and minor version."""
    on_ros: bool
    """True where a sourced ROS 2 install lies underneath."""
    variables: Mapping[str, str]
    """Environment variables for pip and colcon."""

    @property
    def python(self) -> Path:
        """The environment's own interpreter."""
        return self.venv / "bin" / "python3"

    @property
    def site_packages(self) -> Path:
        """Where pip installs to."""
        return self.venv / "lib" / f"python{self.version[0]}.{self.version[1]}" / "site-packages"

    @property
    def lock(self) -> Path:
        """The lock file for this Python."""
        return self.root / "requirements" / f"py{self.version[0]}{self.version[1]}.lock"

    @property
    def log(self) -> Path:
        """The full log of the set-up."""
        return self.root / ".chatvla" / "setup.log"


def layer_pins(lock: Path) -> dict[str, list[str]]:
    """Return the pinned requirements of each layer of `lock`."""
    if not lock.is_file():
        raise BrokenEnvironmentError(
            f"no lock file {lock}: only Python 3.11 and 3.12 are supported. Set CHATVLA_PYTHON."
        )
    layers: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line.startswith("# layer: "):
            current = layers.setdefault(line.removeprefix("# layer: ").strip(), [])
        elif line.strip() and not line.startswith("#"):
            current.append(line.strip())
    return layers


def wanted_pins(environment: Environment, layer: str) -> list[str]:
    """Return what `layer` should install here."""
    pins = layer_pins(environment.lock).get(layer, [])
    if not environment.on_ros:
        return pins
    if layer == "ros" or (layer == "build" and shutil.which("colcon")):
        return []
    return [pin for pin in pins if pin.split("==")[0] not in ROS_PROVIDES]


def stamp_text(environment: Environment, layer: str) -> str:
    """Return what the stamp of a complete `layer` says."""
    parts = [str(environment.venv), str(environment.base_python), *map(str, environment.version)]
    parts += [str(environment.on_ros), *wanted_pins(environment, layer)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _stamp(environment: Environment, layer: str) -> Path:
    return environment.venv / "chatvla" / f"{layer}.stamp"


def is_current(environment: Environment, layer: str) -> bool:
    """Return whether `layer` is completely installed."""
    stamp = _stamp(environment, layer)
    return stamp.is_file() and stamp.read_text() == stamp_text(environment, layer)


def missing_layers(environment: Environment, layers: Sequence[str]) -> list[str]:
    """Return those of `layers` that still have to be installed, in order."""
    return [layer for layer in layers if not is_current(environment, layer)]


def install_layer(environment: Environment, layer: str) -> None:
    """Install every pin of `layer`; raise a BrokenNetworkError or BrokenEnvironmentError that says why pip cannot."""
    pins = wanted_pins(environment, layer)
    stamp = _stamp(environment, layer)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    started = stamp.with_suffix(".started")
    if started.exists():
        _forget_half_installed(environment.site_packages)
    started.touch()
    if pins:
        torch = [pin for pin in pins if pin.startswith("torch==")]
        _pip_install(environment, layer, [pin for pin in pins if pin not in torch])
        for pin in torch:
            _install_torch(environment, pin)
    stamp.write_text(stamp_text(environment, layer))
    started.unlink()


def _pip_install(environment: Environment, title: str, pins: Sequence[str]) -> None:
    requirements = environment.venv / "chatvla" / f"{title}.txt"
    requirements.write_text("\n".join(pins) + "\n")
    progress = Progress(f"Python packages: {title} ({len(pins)})")
    seen = 0

    def show(line: str) -> None:
        nonlocal seen
        if line.startswith(("Collecting ", "Requirement already satisfied")):
            seen += 1
            progress.update(f"{seen} of {len(pins)}, {line.split()[1] if line.startswith('C') else 'present'}")
        elif line.startswith("Installing collected"):
            progress.update("unpacking")

    code, output = _pip(environment, ["install", "--no-deps", "--progress-bar=off", "-r", str(requirements)], show)
    if code != 0:
        progress.done("failed")
        if "(from versions: none)" in output:
            # Without retries pip tells an unreachable index apart from an empty one only in its verbose output.
            output += _pip(environment, ["install", "-vvv", "--dry-run", "--no-deps", "-r", str(requirements)])[1]
        raise pip_fault(output, environment.log)
    progress.done()


def _install_torch(environment: Environment, pin: str) -> None:
    """Install torch: the build without CUDA where there is no NVIDIA device, since the other is ten times the size."""
    pip = ["install", "--no-deps", "--progress-bar=off"]
    cpu_pin = f"{pin}+cpu"
    progress = Progress(f"Python packages: {pin}")
    has_gpu = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    if not has_gpu:
        attempts = (["--no-index", cpu_pin], ["--retries=0", f"--index-url={CPU_TORCH_INDEX}", cpu_pin])
        if any(_pip(environment, [*pip, *attempt])[0] == 0 for attempt in attempts):
            progress.done()
            return
    code, output = _pip(environment, [*pip, pin])
    if code != 0:
        progress.done("failed")
        raise pip_fault(output, environment.log)
    progress.done()
    _pip_install(environment, "cuda", layer_pins(environment.lock).get("cuda", []))


def _pip(environment: Environment, arguments: Sequence[str], on_line=lambda _line: None) -> tuple[int, str]:  # noqa: ANN001
    return run_logged(
        [environment.python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
        log=environment.log,
        cwd=environment.root,
        env=environment.variables,
        on_line=on_line,
    )


def pip_fault(output: str, log: Path) -> ChatvlaError:
    """Return the error that pip's `output` amounts to: network, disk, compiler, or a pin that the index lacks."""
    last = next((line for line in reversed(output.splitlines()) if line.startswith("ERROR:")), "").strip()
    if "No space left on device" in output or "[Errno 28]" in output:
        return BrokenEnvironmentError("the disk is full. Free some space and run the same command again: it continues.")
    if any(sign in output for sign in NETWORK_SIGNS) or re.search(r"Could not fetch URL (?!.*\b404\b)", output):
        index = _index_in(output)
        return BrokenNetworkError(
            f"the network is at fault: pip cannot reach the package index{index}.\n"
            "Check the connection, PIP_INDEX_URL and proxy settings, then run the same command again: it continues.\n"
            f"Log: {log}"
        )
    if "No matching distribution found" in output or "Could not find a version" in output:
        return BrokenEnvironmentError(f"the package index answers but lacks a pinned package: {last}\nLog: {log}")
    if "error: command" in output or "failed-wheel-build" in output:
        return BrokenEnvironmentError(
            f"a package had to be compiled and could not be. Install gcc, g++ and Python's headers. Log: {log}"
        )
    return BrokenEnvironmentError(f"pip failed: {last or output.strip()[-300:]}\nLog: {log}")


def _index_in(output: str) -> str:
    found = re.search(r"host='([^']+)', port=(\d+)", output) or re.search(r"//([^/\s:]+):?(\d*)", output)
    return f" at {found[1]}" + (f":{found[2]}" if found[2] else "") if found else ""


def _forget_half_installed(site_packages: Path) -> None:
    """Delete the records of packages whose installation was cut off, so that pip installs them again.

    pip takes a package for installed when its .dist-info folder exists, and writes INSTALLER after all other files.
    """
    known: Collection[str] = os.listdir(site_packages) if site_packages.is_dir() else ()
    for name in known:
        folder = site_packages / name
        if name.startswith("~") or (name.endswith(".dist-info") and not (folder / "INSTALLER").exists()):
            shutil.rmtree(folder, ignore_errors=True)
