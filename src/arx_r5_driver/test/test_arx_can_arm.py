# SPDX-License-Identifier: Apache-2.0
"""ArxCanArm drives two arms through the maker's own Python code; only the compiled part is replaced.

Where the SDK is not installed, a stand-in takes the place of its Python code, too.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arx_r5_driver import arx_can_arm
from arx_r5_driver.arx_can_arm import ArxCanArm
from chatvla_control.arm_port import ArmPortError

from .arx_cell import HOME, OPEN_RAD, SPEC, Interfaces, Network, stand_ins

SDK = importlib.util.find_spec("arx_r5_sdk")
needs_sdk = pytest.mark.skipif(SDK is None, reason="pip install --no-deps arx-r5-sdk==1.0.0 (builds in about 80 s)")


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Interfaces]]:
    """The SDK's own Python files, where installed, over a recording stand-in for its compiled part."""
    for name in [name for name in sys.modules if name.split(".")[0] == "arx_r5_sdk"]:
        monkeypatch.delitem(sys.modules, name)
    for name, module in stand_ins(installed=SDK is not None).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(arx_can_arm.ctypes, "CDLL", lambda *arguments, **options: None)
    Interfaces.made = []
    yield Interfaces
    for name in [name for name in sys.modules if name.split(".")[0] == "arx_r5_sdk"]:
        sys.modules.pop(name)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


def arm(network: Network, **options: Any) -> ArxCanArm:
    clocks: dict[str, Any] = {"clock": lambda: 5.0, "steady_clock": lambda: network.now_s, "sleep": network.sleep}
    return ArxCanArm(SPEC, network=network.folder, **clocks, **options)


@needs_sdk
def test_connects_one_sdk_arm_per_interface_and_holds(sdk: type[Interfaces], network: Network) -> None:
    arm(network).connect()
    assert [made.name for made in sdk.made] == ["can0", "can1"]
    assert all(Path(made.urdf_path).is_file() for made in sdk.made)
    assert all(made.commanded == HOME[:6].tolist() for made in sdk.made)
    assert all(made.status == 5 for made in sdk.made)


def test_connecting_again_makes_no_second_arm(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    port.connect()
    assert len(sdk.made) == 2


@pytest.mark.parametrize(("silent", "side"), [("can0", "left"), ("can1", "right")])
def test_a_silent_arm_is_not_connected_and_no_arm_is_commanded(
    sdk: type[Interfaces], network: Network, silent: str, side: str
) -> None:
    network.on.remove(silent)
    port = arm(network)
    with pytest.raises(ArmPortError, match=f"the {side} arm on {silent} sent nothing for 0.5 s; check its power"):
        port.connect()
    assert [made.commanded for made in sdk.made] == [[], []]
    assert [made.status for made in sdk.made] == [2, 2]
    network.on.add(silent)
    port.connect()
    assert [made.name for made in sdk.made] == ["can0", "can1"] * 2
    assert [made.commanded for made in sdk.made[2:]] == [HOME[:6].tolist()] * 2


def test_an_arm_that_fell_silent_is_not_commanded_when_connecting_again(
    sdk: type[Interfaces], network: Network
) -> None:
    port = arm(network)
    port.connect()
    network.on.remove("can1")
    sdk.made[1].joints = [0.2] * 7
    with pytest.raises(ArmPortError, match="right arm on can1 sent nothing"):
        port.connect()
    assert [made.commanded for made in sdk.made] == [HOME[:6].tolist()] * 2
    network.on.add("can1")
    port.connect()
    assert len(sdk.made) == 2
    assert sdk.made[1].commanded == [0.2] * 6


def test_an_arm_that_does_not_start_leaves_the_other_damped(
    sdk: type[Interfaces], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Interfaces.__init__

    def begin_left_only(self: Interfaces, urdf_path: str, name: str, kind: int) -> None:
        if name == "can1":
            raise OSError("no motor")
        begin(self, urdf_path, name, kind)

    monkeypatch.setattr(Interfaces, "__init__", begin_left_only)
    with pytest.raises(ArmPortError, match="the right arm on can1 does not start: no motor"):
        arm(network).connect()
    assert [made.status for made in sdk.made] == [2]


def test_reads_both_arms_in_spec_order_with_the_gripper_in_metres(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    sdk.made[1].joints = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, OPEN_RAD / 2]
    state = port.read()
    assert np.allclose(state.positions, [*HOME[:7], 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.044])
    assert state.velocities[6] == pytest.approx(0.1 * 0.088 / OPEN_RAD)
    assert np.isnan(state.efforts).all()
    assert state.stamp_s == 5.0


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


def test_stop_commands_the_measured_pose(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    sdk.made[0].joints = [0.2, 0.3, 0.4, 0.1, 0.1, 0.1, 0.0]
    port.stop()
    assert np.allclose(sdk.made[0].commanded, [0.2, 0.3, 0.4, 0.1, 0.1, 0.1])


def test_stop_protects_an_arm_that_cannot_be_read(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    sdk.made[0].joints = [float("nan")] * 7
    port.stop()
    assert sdk.made[0].status == 2
    assert sdk.made[1].status == 5


def test_stop_leads_an_arm_a_little_outside_its_limits_back_and_protects_one_far_outside(
    sdk: type[Interfaces], network: Network
) -> None:
    port = arm(network)
    port.connect()
    high = SPEC.upper[:6].tolist()
    sdk.made[0].joints = [*high[:5], high[5] + 0.05, 0.0]
    sdk.made[1].joints = [*high[:5], high[5] + 0.15, 0.0]
    port.stop()
    assert [made.status for made in sdk.made] == [5, 2]
    assert [made.commanded for made in sdk.made] == [high, HOME[:6].tolist()]


@pytest.mark.parametrize("dead", [0, 1])
def test_one_dead_arm_does_not_keep_the_other_from_being_stopped_and_damped(
    sdk: type[Interfaces], network: Network, dead: int
) -> None:
    port = arm(network)
    port.connect()
    left, right = sdk.made
    for made in (left, right):
        made.joints = [0.2] * 7
    sdk.made[dead].dead = True
    side, interface = (("left", "can0"), ("right", "can1"))[dead]
    sentence = f"the {side} arm on {interface} cannot be stopped: No such device or address; use the emergency stop"
    with pytest.raises(ArmPortError, match=sentence):
        port.stop()
    assert sdk.made[1 - dead].commanded == [0.2] * 6
    with pytest.raises(ArmPortError, match=sentence):
        port.close()
    assert sdk.made[1 - dead].status == 2
    port.close()


def test_close_leaves_both_arms_damped(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    port.close()
    port.close()
    assert [made.status for made in sdk.made] == [2, 2]
    with pytest.raises(ArmPortError, match="not connected"):
        port.write(HOME)


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


def test_stop_leaves_a_silent_arm_at_its_last_command(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    port.read()
    network.now_s = 0.3
    network.receive("can0", 9)
    for made in sdk.made:
        made.joints = [0.2] * 7
    port.stop()
    assert [made.commanded for made in sdk.made] == [[0.2] * 6, HOME[:6].tolist()]
    assert [made.status for made in sdk.made] == [5, 5]


def test_unplugged_adapter_is_an_error(sdk: type[Interfaces], network: Network) -> None:
    port = arm(network)
    port.connect()
    (network.folder / "can0" / "statistics" / "rx_packets").unlink()
    with pytest.raises(ArmPortError, match="'can0' of the left arm is gone"):
        port.read()


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
