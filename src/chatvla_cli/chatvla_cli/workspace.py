# SPDX-License-Identifier: Apache-2.0
"""Build our packages with colcon when their build files change, and remember the variables that running them needs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from chatvla_cli.errors import BrokenEnvironmentError
from chatvla_cli.layers import Environment
from chatvla_cli.progress import Progress, run_logged

__all__ = ["build", "build_files", "fingerprint", "is_built", "merged_variables", "package_folders"]

PATH_LISTS = ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH")
INTERFACE_FOLDERS = ("msg", "srv", "action")
PACKAGE_PATTERNS = ("src/*/package.xml", "launch/package.xml", "training/package.xml")
BUILD_FILES = ("package.xml", "setup.py", "setup.cfg", "CMakeLists.txt")


def package_folders(root: Path) -> list[Path]:
    """Return the folders of our packages."""
    return sorted(path.parent for pattern in PACKAGE_PATTERNS for path in root.glob(pattern))


def build_files(root: Path) -> Iterator[Path]:
    """Yield the files whose change needs a new build; Python modules are linked, so edits to them are live."""
    for folder in package_folders(root):
        yield from (folder / name for name in BUILD_FILES if (folder / name).is_file())
        for kind in INTERFACE_FOLDERS:
            yield from sorted((folder / kind).glob(f"*.{kind}"))


def fingerprint(environment: Environment) -> str:
    """Return a hash of the build files, of the names of data files, and of what the build stands on."""
    digest = hashlib.sha256(f"{environment.root}\n{environment.base_python}\n{environment.on_ros}\n".encode())
    digest.update(os.environ.get("AMENT_PREFIX_PATH", "").encode() if environment.on_ros else b"wheels")
    for path in build_files(environment.root):
        digest.update(str(path.relative_to(environment.root)).encode())
        digest.update(path.read_bytes())
    for path in sorted((environment.root / "launch").rglob("*")):
        digest.update(str(path.relative_to(environment.root)).encode())
    return digest.hexdigest()


def _stamp(environment: Environment) -> Path:
    return environment.root / "install" / "chatvla_build.json"


def is_built(environment: Environment) -> bool:
    """Return whether the installed packages match the build files."""
    try:
        return json.loads(_stamp(environment).read_text())["fingerprint"] == fingerprint(environment)
    except (OSError, ValueError, KeyError):
        return False


def build(environment: Environment) -> None:
    """Run colcon on src and launch; raise BrokenEnvironmentError with its last error lines when a package fails."""
    root = environment.root
    wanted = fingerprint(environment)
    _drop_other_places(root)
    packages = package_folders(root)
    progress = Progress(f"Building {len(packages)} packages")

    def show(line: str) -> None:
        if found := re.match(r"(?:Starting|Finished) (?:>>>|<<<) (\S+)", line):
            progress.update(found[1])

    command = [*_colcon(environment), "--log-base", "log", "build", "--symlink-install"]
    command += ["--base-paths", *(str(folder.relative_to(root)) for folder in packages)]
    command += ["--event-handlers", "desktop_notification-", "status-", "--cmake-args"]
    command += [f"-DPython3_EXECUTABLE={environment.python}", "--no-warn-unused-cli"]
    code, output = run_logged(command, log=environment.log, cwd=root, env=environment.variables, on_line=show)
    if code != 0:
        progress.done("failed")
        errors = [line for line in output.splitlines() if re.search(r"\berror\b", line, re.IGNORECASE)]
        if "No space left on device" in output:
            raise BrokenEnvironmentError(
                "the disk is full. Free some space and run the same command again: it continues."
            )
        reason = errors[0] if errors else output.strip()[-200:]
        raise BrokenEnvironmentError(f"colcon build failed: {reason}\nLog: {environment.log}")
    progress.done()
    variables = _installed_variables(environment)
    _stamp(environment).write_text(json.dumps({"fingerprint": wanted, "variables": variables}, indent=1))


def _colcon(environment: Environment) -> list[str]:
    """Return how colcon is run: by `.venv`'s Python where that can, since installed nodes start with colcon's own.

    The one that apt installs would give them the system's, which does not look into `.venv`.
    """
    colcon = shutil.which("colcon", path=environment.variables.get("PATH")) or "colcon"
    command = [str(environment.python), "-c", "import colcon_core"]
    try:
        done = subprocess.run(command, env=environment.variables, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return [colcon]
    return [str(environment.python), colcon] if done.returncode == 0 and Path(colcon).is_file() else [colcon]


def _drop_other_places(root: Path) -> None:
    """Delete build output made elsewhere: a moved checkout's files name the old folder."""
    setup = root / "install" / "setup.sh"
    if setup.is_file() and f"={root / 'install'}\n" not in setup.read_text():
        for folder in ("build", "install"):
            shutil.rmtree(root / folder, ignore_errors=True)


def _installed_variables(environment: Environment) -> dict[str, list[str]]:
    """Return what sourcing the installed packages puts in front of each path list."""
    script = ". ./local_setup.sh >/dev/null && env -0"
    clean = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "COLCON_CURRENT_PREFIX": "."}
    install = environment.root / "install"
    clean["COLCON_CURRENT_PREFIX"] = str(install)
    if not environment.on_ros:
        clean["LD_LIBRARY_PATH"] = environment.variables.get("LD_LIBRARY_PATH", "")
        clean["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
    done = subprocess.run(["sh", "-c", script], cwd=install, env=clean, capture_output=True, text=True, check=True)
    after = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)
    root = f"{environment.root}{os.sep}"
    return {
        name: [part for part in after.get(name, "").split(":") if part.startswith(root) and ".venv" not in part]
        for name in PATH_LISTS
    }


def merged_variables(environment: Environment, base: Mapping[str, str]) -> dict[str, str]:
    """Return `base` with the installed packages in front of each path list."""
    merged = dict(base)
    for name, parts in json.loads(_stamp(environment).read_text())["variables"].items():
        kept = [part for part in base.get(name, "").split(":") if part and part not in parts]
        if parts or kept:
            merged[name] = ":".join([*parts, *kept])
    return merged
