# SPDX-License-Identifier: Apache-2.0
"""The set-up's parts: locks, stamps, patched CMake files, moved folders, and which fault pip's output amounts to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chatvla_cli import relocate, system_packages, workspace
from chatvla_cli.errors import BrokenEnvironmentError, BrokenNetworkError
from chatvla_cli.layers import Environment, install_layer, is_current, layer_pins, missing_layers, pip_fault
from chatvla_cli.ros_wheels import patch_cmake, patched

ROOT = Path(__file__).resolve().parents[3]
LOG = Path("setup.log")


def environment(root: Path, *, on_ros: bool = False) -> Environment:
    return Environment(
        root=root,
        venv=root / ".venv",
        base_python=Path(sys.executable),
        version=(3, 11),
        on_ros=on_ros,
        variables={"PATH": "/usr/bin:/bin"},
    )


@pytest.mark.parametrize("lock", ["py311.lock", "py312.lock"])
def test_locks_pin_everything_once(lock: str) -> None:
    layers = layer_pins(ROOT / "requirements" / lock)
    assert list(layers) == ["ros", "build", "core", "model", "cuda", "dev"]
    names = [pin.split("==")[0] for pins in layers.values() for pin in pins]
    assert len(names) == len(set(names))
    assert all(pin.count("==") == 1 for pins in layers.values() for pin in pins)
    assert {"torch==2.13.0", "ros-jazzy-rclpy==7.1.6"} <= {pin for pins in layers.values() for pin in pins}


def test_both_locks_agree_on_versions() -> None:
    both = [
        {pin for pins in layer_pins(ROOT / "requirements" / name).values() for pin in pins}
        for name in ("py311.lock", "py312.lock")
    ]
    assert both[0] == both[1]


def test_an_unknown_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenEnvironmentError, match=r"3\.11 and 3\.12"):
        layer_pins(tmp_path / "py399.lock")


def test_a_layer_is_current_only_with_its_stamp(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / ".chatvla").mkdir()
    lock = tmp_path / "requirements" / "py311.lock"
    lock.write_text("# layer: ros\n\n# layer: core\n")
    here = environment(tmp_path)
    assert missing_layers(here, ["core"]) == ["core"]
    install_layer(here, "core")
    assert is_current(here, "core")
    lock.write_text("# layer: core\nnumpy==2.3.5\n")
    assert not is_current(here, "core")


def test_a_cut_off_installation_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "py311.lock").write_text("# layer: core\n")
    here = environment(tmp_path)
    for name, files in {"whole-1.dist-info": ["INSTALLER"], "half-1.dist-info": ["METADATA"]}.items():
        (here.site_packages / name).mkdir(parents=True)
        for file in files:
            (here.site_packages / name / file).touch()
    (here.venv / "chatvla").mkdir()
    (here.venv / "chatvla" / "core.started").touch()
    install_layer(here, "core")
    assert [path.name for path in here.site_packages.iterdir()] == ["whole-1.dist-info"]


def test_what_ros_brings_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "py311.lock").write_text(
        "# layer: ros\nros-jazzy-rclpy==7.1.6\n# layer: core\nnumpy==2\n"
    )
    from chatvla_cli.layers import wanted_pins

    assert wanted_pins(environment(tmp_path, on_ros=True), "ros") == []
    assert wanted_pins(environment(tmp_path, on_ros=True), "core") == []
    assert wanted_pins(environment(tmp_path), "core") == ["numpy==2"]


def test_a_dead_index_is_the_networks_fault() -> None:
    output = (
        "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by "
        "'NewConnectionError('<HTTPConnection object>: Connection refused')': /simple/numpy/\n"
        "ERROR: Could not find a version that satisfies the requirement numpy==2.3.5 (from versions: none)\n"
        "ERROR: No matching distribution found for numpy==2.3.5\n"
    )
    assert isinstance(pip_fault(output, LOG), BrokenNetworkError)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for numpy==9.9", "lacks a pinned package"),
        ("error: command 'gcc' failed: No such file or directory", "gcc"),
        ("ERROR: something new", "something new"),
    ],
)
def test_other_faults_are_the_environments(output: str, words: str) -> None:
    fault = pip_fault(output, LOG)
    assert isinstance(fault, BrokenEnvironmentError)
    assert words in str(fault)


BUILT = (
    'set(include "/opt/python/cp311-cp311/include/python3.11")\n'
    'set(numpy "/opt/python/cp312-cp312/lib/python3.12/site-packages/numpy/_core/include")\n'
    'INTERFACE_LINK_LIBRARIES "fastcdr;/usr/lib64/libtinyxml2.so;dl"\n'
    'set(_exported_library_names "lttng-ust;dl")\n'
)


def test_wheels_name_this_python_after_patching(tmp_path: Path) -> None:
    (tmp_path / "a.cmake").write_text(BUILT)
    paths = {"python_include": Path("/here/include"), "numpy_include": Path("/here/numpy")}
    assert patch_cmake(tmp_path, **paths) == 1
    text = (tmp_path / "a.cmake").read_text()
    assert '"/here/include"' in text
    assert '"/here/numpy"' in text
    assert '"fastcdr;dl"' in text
    assert '"dl"' in text
    assert patch_cmake(tmp_path, **paths) == 0
    assert patched(text, **paths) == text


def test_a_moved_environment_is_repaired(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / ".venv", tmp_path / "new" / ".venv"
    (old / "bin").mkdir(parents=True)
    (old / "chatvla").mkdir()
    (old / "pyvenv.cfg").write_text(f"command = python -m venv {old}\n")
    (old / "bin" / "tool").write_text(f"#!{old}/bin/python3\n")
    (old / "chatvla" / "core.stamp").write_text("done")
    relocate.remember_home(old)
    assert not relocate.was_moved(old)
    (tmp_path / "old").rename(tmp_path / "new")
    assert relocate.was_moved(new)
    assert relocate.repair(new) == 2
    assert (new / "bin" / "tool").read_text() == f"#!{new}/bin/python3\n"
    assert not relocate.was_moved(new)
    assert not (new / "chatvla" / "core.stamp").exists()


def test_missing_libraries_are_read_from_dpkg(tmp_path: Path) -> None:
    wanted = system_packages.listed_packages(ROOT)
    assert "libosmesa6" in wanted
    assert system_packages.missing_libraries(ROOT, dpkg_info=tmp_path) == wanted
    for name in wanted:
        (tmp_path / f"{name}:amd64.list").touch()
    assert system_packages.missing_libraries(ROOT, dpkg_info=tmp_path) == []
    assert system_packages.missing_libraries(ROOT, dpkg_info=tmp_path / "absent") == []


def test_only_build_files_ask_for_a_new_build(tmp_path: Path) -> None:
    package = tmp_path / "src" / "demo"
    (package / "demo").mkdir(parents=True)
    (package / "package.xml").write_text("<package/>")
    (package / "demo" / "code.py").write_text("x = 1\n")
    before = workspace.fingerprint(environment(tmp_path))
    (package / "demo" / "code.py").write_text("x = 2\n")
    assert workspace.fingerprint(environment(tmp_path)) == before
    (package / "package.xml").write_text("<package></package>")
    assert workspace.fingerprint(environment(tmp_path)) != before


def test_set_up_code_runs_on_the_standard_library_alone() -> None:
    code = "import chatvla_cli.bootstrap"
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-E",
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT / 'src' / 'chatvla_cli')!r}); {code}",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
