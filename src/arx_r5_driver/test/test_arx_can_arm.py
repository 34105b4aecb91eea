# SPDX-License-Identifier: Apache-2.0
"""ArxCanArm drives two arms through the maker's own Python code; only the compiled part is replaced."""

from __future__ import annotations

import ast
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from arx_r5_driver import arx_can_arm
from arx_r5_driver.arx_can_arm import ArxCanArm
from chatvla_control.arm_port import ArmPortError
from chatvla_control.robot_spec import robot_spec

SPEC = robot_spec("arx_r5")
HOME = np.array(SPEC.home)
OPEN_RAD = 5.03
SDK = importlib.util.find_spec("arx_r5_sdk")
needs_sdk = pytest.mark.skipif(SDK is None, reason="pip install --no-deps arx-r5-sdk==1.0.0 (builds in about 80 s)")


class Interfaces:
    """The compiled class of the SDK: its methods as single_arm_interface.cpp binds them, recording the calls."""

    made: ClassVar[list[Interfaces]] = []

    def __init__(self, urdf_path: str, name: str, kind: int) -> None:
        assert isinstance(urdf_path, str)
        assert isinstance(kind, int)
        self.urdf_path, self.name = urdf_path, name
        self.joints = [*HOME[:6].tolist(), 0.088 * OPEN_RAD / 0.088]
        self.status = -1
        self.commanded: list[float] = []
        self.catch: float | None = None
        Interfaces.made.append(self)

    def arx_x(self, first: float, second: float, third: float) -> None: ...

    def set_arm_status(self, state: int) -> bool:
        self.status = state
        return True

    def set_joint_positions(self, positions: list[float]) -> bool:
        assert len(positions) == 6
        assert all(isinstance(value, float) for value in positions)
        self.commanded = positions
        return True

    def set_catch(self, position: float) -> bool:
        assert isinstance(position, float)
        self.catch = position
        return True

    def get_joint_positions(self) -> list[float]:
        return self.joints

    def get_joint_velocities(self) -> list[float]:
        return [0.1] * 7


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Interfaces]]:
    """The SDK's own Python files over a recording stand-in for its compiled part."""
    compiled = types.ModuleType("arx_r5_sdk.lib")
    compiled.arx_r5_python = types.ModuleType("arx_r5_sdk.lib.arx_r5_python")  # type: ignore[attr-defined]
    compiled.arx_r5_python.InterfacesPy = Interfaces  # type: ignore[attr-defined]
    compiled.kinematic_solver = types.ModuleType("arx_r5_sdk.lib.kinematic_solver")  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name.split(".")[0] == "arx_r5_sdk"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "arx_r5_sdk.lib", compiled)
    monkeypatch.setattr(arx_can_arm.ctypes, "CDLL", lambda *arguments, **options: None)
    monkeypatch.setattr(arx_can_arm, "_SETTLE_S", 0.0)
    Interfaces.made = []
    yield Interfaces
    for name in [name for name in sys.modules if name.split(".")[0] == "arx_r5_sdk"]:
        sys.modules.pop(name)


class Network:
    """A folder that looks like /sys/class/net with CAN interfaces in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 0.0
        for name in ("can0", "can1", "eth0"):
            (folder / name / "statistics").mkdir(parents=True)
            (folder / name / "operstate").write_text("up\n")
            self.receive(name, 1)

    def receive(self, name: str, frames: int) -> None:
        (self.folder / name / "statistics" / "rx_packets").write_text(f"{frames}\n")


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


def arm(network: Network, **options: Any) -> ArxCanArm:
    return ArxCanArm(SPEC, network=network.folder, clock=lambda: 5.0, steady_clock=lambda: network.now_s, **options)


@needs_sdk
def test_connects_one_sdk_arm_per_interface_and_holds(sdk: type[Interfaces], network: Network) -> None:
    arm(network).connect()
    assert [made.name for made in sdk.made] == ["can0", "can1"]
    assert all(Path(made.urdf_path).is_file() for made in sdk.made)
    assert all(made.commanded == HOME[:6].tolist() for made in sdk.made)
    assert all(made.status == 5 for made in sdk.made)


@needs_sdk
def test_connecting_again_makes_no_second_arm(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    port.connect()
    assert len(sdk.made) == 2


@needs_sdk
def test_reads_both_arms_in_spec_order_with_the_gripper_in_metres(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    sdk.made[1].joints = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, OPEN_RAD / 2]
    state = port.read()
    assert np.allclose(state.positions, [*HOME[:7], 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.044])
    assert state.velocities[6] == pytest.approx(0.1 * 0.088 / OPEN_RAD)
    assert np.isnan(state.efforts).all()
    assert state.stamp_s == 5.0


@needs_sdk
def test_writes_six_joints_and_the_gripper_to_each_arm(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network, gripper_open_rad=-3.4)
    port.connect()
    target = HOME + 0.01 * np.arange(14)
    target[[6, 13]] = 0.044, 0.0
    port.write(target)
    assert np.allclose(sdk.made[0].commanded, target[:6])
    assert np.allclose(sdk.made[1].commanded, target[7:13])
    assert sdk.made[0].catch == pytest.approx(-1.7)
    assert sdk.made[1].catch == pytest.approx(0.0)
    assert sdk.made[0].status == 5


@needs_sdk
def test_stop_commands_the_measured_pose(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    sdk.made[0].joints = [0.2, 0.3, 0.4, 0.1, 0.1, 0.1, 0.0]
    port.stop()
    assert np.allclose(sdk.made[0].commanded, [0.2, 0.3, 0.4, 0.1, 0.1, 0.1])


@needs_sdk
def test_stop_protects_an_arm_that_cannot_be_read(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    sdk.made[0].joints = [float("nan")] * 7
    port.stop()
    assert sdk.made[0].status == 2


@needs_sdk
def test_close_leaves_both_arms_damped(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    port.close()
    port.close()
    assert [made.status for made in sdk.made] == [2, 2]
    with pytest.raises(ArmPortError, match="not connected"):
        port.write(HOME)


@needs_sdk
def test_silent_bus_is_an_error_though_the_sdk_repeats_its_values(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    for tick in range(20):
        network.now_s = 0.02 * tick
        network.receive("can0", tick)
        network.receive("can1", min(tick, 5))
        if tick < 15:
            port.read()
    with pytest.raises(ArmPortError, match="right arm on can1 sent nothing"):
        port.read()


@needs_sdk
def test_unplugged_adapter_is_an_error(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    (network.folder / "can0" / "statistics" / "rx_packets").unlink()
    with pytest.raises(ArmPortError, match="'can0' of the left arm is gone"):
        port.read()


@needs_sdk
def test_reading_of_the_wrong_width_is_an_error(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    sdk.made[1].joints = [0.0] * 6
    with pytest.raises(ArmPortError, match="shape"):
        port.read()


@needs_sdk
def test_every_sdk_call_exists_with_that_many_arguments() -> None:
    """Calls on the SDK's arms in our source against the signatures in the SDK's own single_arm.py."""
    assert SDK is not None
    assert SDK.submodule_search_locations
    source = (Path(SDK.submodule_search_locations[0]) / "single_arm.py").read_text()
    theirs = next(
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "SingleArm"
    )
    signatures = {item.name: item.args for item in theirs.body if isinstance(item, ast.FunctionDef)}
    assert [argument.arg for argument in signatures["__init__"].args] == ["self", "config"]
    config_keys = {
        node.args[0].value
        for node in ast.walk(theirs)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        if isinstance(node.args[0], ast.Constant)
    }
    assert config_keys == {"can_port", "type", "num_joints", "dt"}
    used: dict[str, int] = {}
    for node in ast.walk(ast.parse(Path(arx_can_arm.__file__).read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "arm":
            used.setdefault(node.attr, 0)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("arm."):
            used[ast.unparse(node.func).removeprefix("arm.")] = len(node.args)
    assert set(used) == {
        "get_joint_positions",
        "get_joint_velocities",
        "set_joint_positions",
        "set_catch_pos",
        "protect_mode",
    }
    for name, count in used.items():
        arguments = signatures[name]
        required = len(arguments.args) - 1 - len(arguments.defaults)
        assert required <= count <= len(arguments.args) - 1, name


def test_missing_interface_names_those_that_exist(network: Network) -> None:
    with pytest.raises(ArmPortError, match=r"no CAN interface 'can7'.*there are can0, can1"):
        arm(network, right_can="can7").connect()


def test_interface_that_is_down_says_how_to_raise_it(network: Network) -> None:
    (network.folder / "can1" / "operstate").write_text("down\n")
    with pytest.raises(ArmPortError, match="ip link set can1 up type can bitrate 1000000"):
        arm(network).connect()


def test_missing_sdk_says_what_to_install(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arx_r5_sdk", None)
    with pytest.raises(ArmPortError, match=r"pip install --no-deps arx-r5-sdk==1\.0\.0"):
        arm(network).connect()


@pytest.mark.parametrize("options", [{"left_can": "can1"}, {"gripper_open_rad": 0.0}])
def test_settings_that_cannot_work_are_refused(network: Network, options: dict[str, Any]) -> None:
    with pytest.raises(ArmPortError):
        arm(network, **options)
