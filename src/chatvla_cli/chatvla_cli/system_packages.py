# SPDX-License-Identifier: Apache-2.0
"""Find which system packages are missing, install them when root, and otherwise say the one command that does."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from chatvla_cli.errors import BrokenEnvironmentError
from chatvla_cli.progress import Progress, run_logged

__all__ = ["BUILD_TOOLS", "ensure_build_tools", "ensure_libraries", "listed_packages", "missing_libraries"]

BUILD_TOOLS: Mapping[str, str] = {"gcc": "gcc", "g++": "g++", "cmake": "cmake", "make": "make"}
"""Command -> the Debian package that brings it."""
DPKG_INFO = Path("/var/lib/dpkg/info")


def listed_packages(root: Path) -> list[str]:
    """Return the Debian packages of requirements/apt.txt: libraries and fonts, first word of each line."""
    lines = (root / "requirements" / "apt.txt").read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def missing_libraries(root: Path, *, dpkg_info: Path = DPKG_INFO) -> list[str]:
    """Return the listed packages that dpkg does not hold; empty where there is no dpkg to ask."""
    if not dpkg_info.is_dir():
        return []
    held = {path.name.removesuffix(".list").split(":")[0] for path in dpkg_info.glob("*.list")}
    return [name for name in listed_packages(root) if name not in held]


def ensure_build_tools(root: Path, log: Path) -> None:
    """Make sure of a compiler, CMake, Python's headers and venv.

    Raises BrokenEnvironmentError with the command to run where something is missing and cannot be installed.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    missing = [package for command, package in BUILD_TOOLS.items() if shutil.which(command) is None]
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing.append(f"{version}-dev")
    if not (Path(sysconfig.get_path("stdlib")) / "ensurepip").is_dir():
        missing.append(f"{version}-venv")
    if missing and not _apt_install(missing, root, log):
        raise BrokenEnvironmentError(
            f"this machine lacks {', '.join(missing)}.\nInstall with: sudo apt-get install -y {' '.join(missing)}"
        )


def ensure_libraries(root: Path, log: Path) -> None:
    """Install the listed libraries and fonts when root; else print the one command, and go on without them."""
    missing = missing_libraries(root)
    if missing and not _apt_install(missing, root, log):
        print(f"Missing system packages. Install with: sudo apt-get install -y {' '.join(missing)}", file=sys.stderr)


def _apt_install(packages: Sequence[str], root: Path, log: Path) -> bool:
    """Return whether apt installed `packages`: only tried as root where apt exists."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    progress = Progress(f"System packages ({len(packages)})")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    code, _ = run_logged(command, log=log, cwd=root, env=env)
    if code != 0:
        run_logged(["apt-get", "update"], log=log, cwd=root, env=env)
        code, _ = run_logged(command, log=log, cwd=root, env=env)
    progress.done("done" if code == 0 else f"apt-get failed, see {log}")
    return code == 0
