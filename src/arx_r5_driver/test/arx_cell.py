# SPDX-License-Identifier: Apache-2.0
"""What lies under ArxCanArm: the SDK's classes, recording their calls, and the kernel's view of the CAN interfaces."""

from __future__ import annotations

import importlib.machinery
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from chatvla_control.robot_spec import robot_spec

SPEC = robot_spec("arx_r5")
HOME = np.array(SPEC.home)
OPEN_RAD = 5.03


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
        self.dead = False
        Interfaces.made.append(self)

    def arx_x(self, first: float, second: float, third: float) -> None: ...

    def set_arm_status(self, state: int) -> bool:
        self._answer()
        self.status = state
        return True

    def set_joint_positions(self, positions: list[float]) -> bool:
        assert len(positions) == 6
        assert all(isinstance(value, float) for value in positions)
        self._answer()
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

    def _answer(self) -> None:
        if self.dead:
            raise OSError("No such device or address")


class SingleArm:
    """The SDK's class, as far as the driver calls it: test_every_sdk_call_exists holds the calls against the SDK."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.arm = Interfaces("", config["can_port"], config["type"])
        self.get_joint_positions = self.arm.get_joint_positions
        self.get_joint_velocities = self.arm.get_joint_velocities
        self.set_catch_pos = self.arm.set_catch

    def set_joint_positions(self, positions: list[float]) -> None:
        self.arm.set_joint_positions(positions)
        self.arm.set_arm_status(5)

    def protect_mode(self) -> None:
        self.arm.set_arm_status(2)


def stand_ins(*, installed: bool) -> dict[str, types.ModuleType]:
    """Return modules by name: the SDK's compiled part, and where it is not `installed` its Python code, too."""
    compiled = types.ModuleType("arx_r5_sdk.lib")
    compiled.__dict__["arx_r5_python"] = types.SimpleNamespace(InterfacesPy=Interfaces)
    compiled.__dict__["kinematic_solver"] = types.SimpleNamespace()
    if installed:
        return {compiled.__name__: compiled}
    package, single_arm = types.ModuleType("arx_r5_sdk"), types.ModuleType("arx_r5_sdk.single_arm")
    package.__spec__ = importlib.machinery.ModuleSpec(package.__name__, None)
    single_arm.__dict__["SingleArm"] = SingleArm
    return {module.__name__: module for module in (package, single_arm)}


class Network:
    """A folder that looks like /sys/class/net with CAN interfaces in it; arms that are on send while time passes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 0.0
        self.on = {"can0", "can1"}
        for name in ("can0", "can1", "eth0"):
            (folder / name / "statistics").mkdir(parents=True)
            (folder / name / "operstate").write_text("up\n")
            self.receive(name, 1)

    def receive(self, name: str, frames: int) -> None:
        (self.folder / name / "statistics" / "rx_packets").write_text(f"{frames}\n")

    def sleep(self, duration_s: float) -> None:
        assert duration_s >= 0.2
        for name in self.on:
            before = int((self.folder / name / "statistics" / "rx_packets").read_text())
            self.receive(name, before + int(1000 * duration_s))
