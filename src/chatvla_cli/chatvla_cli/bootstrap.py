# SPDX-License-Identifier: Apache-2.0
"""Make or check the environment, then run a verb inside it. Runs on any Python 3.11 or 3.12, standard library only.

Steps, each skipped when its stamp says that it is done: `.venv`, lock layers, patched wheels, colcon build.
A sourced ROS 2 Jazzy is used as it is, with a `.venv` on top for Python packages; else ROS 2 comes as pinned wheels.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chatvla_cli import relocate, ros_wheels, system_packages, workspace
from chatvla_cli.errors import BrokenEnvironmentError, ChatvlaError
from chatvla_cli.layers import Environment, install_layer, is_current, missing_layers
from chatvla_cli.progress import Progress
from chatvla_cli.verbs import find_verb, overview

__all__ = ["ensure", "find_environment", "main"]

ROOT = Path(__file__).resolve().parents[3]

DISK_NEEDED_BYTES = 2_500_000_000
BASE_LAYERS = ("ros", "build")


def main(arguments: Sequence[str]) -> int:
    """Run the verb in `arguments` inside the environment; return an exit code when it cannot."""
    root = ROOT
    try:
        if not arguments or arguments[0] in {"-h", "--help", "help"}:
            print(overview(root))
            return 0
        verb = find_verb(root, arguments[0])
        environment = find_environment(root)
        layers = (*BASE_LAYERS, *verb.needed_layers(arguments[1:]))
        if {"-h", "--help"} & set(arguments[1:]) and not _is_ready(environment, (*BASE_LAYERS, *verb.layers)):
            print(f"./chatvla {verb.name} {verb.usage}\n\n{verb.summary}\n{verb.details}")
            return 0
        _check_place(root)
        environment = ensure(environment, layers)
    except ChatvlaError as error:
        print(f"chatvla: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nchatvla: stopped. The same command continues where it stopped.", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"chatvla: {error}. Check the disk's free space and the folder's permissions.", file=sys.stderr)
        return BrokenEnvironmentError.exit_code
    command = [str(environment.python), "-m", "chatvla_cli.main", verb.name, *arguments[1:]]
    variables = workspace.merged_variables(environment, environment.variables)
    os.execve(command[0], command, {**variables, "CHATVLA_ROOT": str(root)})


def _check_place(root: Path) -> None:
    """Raise BrokenEnvironmentError where what colcon and pip write could not be run: paths are not quoted there."""
    if found := re.search(r"[^\w./+~@,=-]", str(root)):
        raise BrokenEnvironmentError(
            f"the checkout lies in '{root}', and colcon's set-up files do not take the character {found[0]!r} in a "
            "path; move the folder, for example to ~/chatvla"
        )


def find_environment(root: Path) -> Environment:
    """Return where the environment of `root` is, or will be."""
    on_ros = _ros_is_sourced()
    base = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    venv = root / ".venv"
    version = (sys.version_info[0], sys.version_info[1])
    variables = {name: value for name, value in os.environ.items() if not name.startswith("_ROS_WHEELS")}
    for name in ("VIRTUAL_ENV", "PYTHONHOME", *(() if on_ros else ("PYTHONPATH", "AMENT_PREFIX_PATH"))):
        variables.pop(name, None)
    variables["PATH"] = f"{venv / 'bin'}:{variables.get('PATH', os.defpath)}"
    variables.setdefault("MUJOCO_GL", "osmesa")
    environment = Environment(
        root=root, venv=venv, base_python=base, version=version, on_ros=on_ros, variables=variables
    )
    if not on_ros:
        # The wheels re-execute every interpreter that lacks these two; set here, it starts once.
        libraries = [str(venv / "lib"), *map(str, sorted(environment.site_packages.glob("ros_*.libs")))]
        known = [part for part in variables.get("LD_LIBRARY_PATH", "").split(":") if part and part not in libraries]
        variables["LD_LIBRARY_PATH"] = ":".join([*libraries, *known])
        variables["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
        variables["AMENT_PREFIX_PATH"] = variables["CMAKE_PREFIX_PATH"] = str(venv)
    return environment


def _ros_is_sourced() -> bool:
    """Return whether a ROS 2 Jazzy install is sourced and usable by this Python."""
    if os.environ.get("ROS_DISTRO") != "jazzy" or "_ROS_WHEELS_BOOTSTRAP_COMPLETE" in os.environ:
        return False
    here = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    parts = os.environ.get("PYTHONPATH", "").split(":")
    return any(here in part and (Path(part) / "rclpy").is_dir() for part in parts)


def _is_ready(environment: Environment, layers: Sequence[str]) -> bool:
    return not missing_layers(environment, layers) and _is_patched(environment) and workspace.is_built(environment)


def ensure(environment: Environment, layers: Sequence[str]) -> Environment:
    """Bring the environment to hold `layers` and the built packages; return it as it then is. Does nothing twice."""
    if _is_ready(environment, layers):
        return environment
    started_s = time.monotonic()
    environment.log.parent.mkdir(exist_ok=True)
    with _only_one(environment.log.with_name("setup.lock")):
        if relocate.was_moved(environment.venv):
            print("The checkout was moved: repairing .venv.", file=sys.stderr)
            relocate.repair(environment.venv)
        missing = missing_layers(environment, layers)
        if missing:
            _check_disk(environment.root, len(missing))
            system_packages.ensure_build_tools(environment.root, environment.log)
            system_packages.ensure_libraries(environment.root, environment.log)
            _make_venv(environment)
        for layer in missing:
            install_layer(environment, layer)
        # The wheels that were just installed bring library folders of their own.
        environment = find_environment(environment.root)
        if not _is_patched(environment):
            _patch_wheels(environment)
        if not workspace.is_built(environment):
            workspace.build(environment)
    print(f"Environment ready ({time.monotonic() - started_s:.0f} s).", file=sys.stderr)
    return environment


def _check_disk(root: Path, layers: int) -> None:
    free = shutil.disk_usage(root).free
    if layers > 1 and free < DISK_NEEDED_BYTES:
        raise BrokenEnvironmentError(
            f"{free / 1e9:.1f} GB free on the disk of {root}, the set-up needs {DISK_NEEDED_BYTES / 1e9:.1f} GB.\n"
            "Free some space, or clone the repository onto another disk."
        )


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold the set-up lock; wait, and say so, while another set-up of this checkout holds it."""
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up of this checkout is running: waiting for it.", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_venv(environment: Environment) -> None:
    """Create `.venv`, or complete one whose creation was cut off, or replace one of another Python or kind."""
    made, kind = environment.venv / "chatvla" / "venv.stamp", f"{environment.base_python} {environment.on_ros}"
    was = made.read_text() if made.is_file() else ""
    if was == kind and environment.python.exists():
        return
    if was.endswith("True") and not environment.on_ros:
        raise BrokenEnvironmentError(
            "this .venv stands on a ROS 2 install that is not sourced now.\n"
            "Run 'source /opt/ros/jazzy/setup.bash' first, or delete .venv to make one without ROS."
        )
    if was or not _has_base(environment):
        shutil.rmtree(environment.venv, ignore_errors=True)
    progress = Progress("Python environment .venv")
    command = [str(environment.base_python), "-m", "venv", str(environment.venv)]
    if environment.on_ros:
        command.append("--system-site-packages")
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode != 0:
        progress.done("failed")
        reason = (done.stdout + done.stderr).strip().splitlines() or ["no reason given"]
        raise BrokenEnvironmentError(f"{environment.base_python} -m venv failed: {reason[-1]}")
    made.parent.mkdir(exist_ok=True)
    relocate.remember_home(environment.venv)
    made.write_text(kind)
    progress.done()


def _has_base(environment: Environment) -> bool:
    """Return whether an unstamped `.venv` was made from the Python in use: its creation may have been cut off."""
    settings = environment.venv / "pyvenv.cfg"
    return settings.is_file() and f"home = {environment.base_python.parent}\n" in settings.read_text()


def _patch_stamp(environment: Environment) -> tuple[Path, str]:
    return environment.venv / "chatvla" / "cmake.stamp", f"{sysconfig.get_path('include')} {environment.venv}"


def _is_patched(environment: Environment) -> bool:
    stamp, text = _patch_stamp(environment)
    return environment.on_ros or (is_current(environment, "ros") and stamp.is_file() and stamp.read_text() == text)


def _patch_wheels(environment: Environment) -> None:
    stamp, text = _patch_stamp(environment)
    ros_wheels.patch_cmake(
        environment.venv / "share",
        python_include=Path(sysconfig.get_path("include")),
        numpy_include=environment.site_packages / "numpy" / "_core" / "include",
    )
    stamp.write_text(text)
