# SPDX-License-Identifier: Apache-2.0
"""Reach two ARX R5 arms over CAN with the maker's SDK (PyPI arx-r5-sdk 1.0.0, BSD-3).

Two `SingleArm`s are driven: the SDK's `BimanualArm.set_joint_positions` raises TypeError. Quaternions are never used:
the SDK documents their order both ways. Units of the SDK: rad; its seventh joint and `set_catch_pos` are the gripper's
motor angle, 0 when shut and `gripper_open_rad` when fully open, mapped here to 0 .. 0.088 m of opening, linearly. The
SDK's compiled part needs ROS's kdl_parser library and Linux's SocketCAN: it is imported when the port connects.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_port import OUTSIDE_RAD, ArmPort, ArmPortError, JointState
from chatvla_control.robot_spec import RobotSpec

__all__ = ["ArxCanArm"]

Array = NDArray[np.float64]
_JOINTS = 6
_SETTLE_S = 0.5
_SILENCE_S = 0.2
_NETWORK = Path("/sys/class/net")


class ArxCanArm(ArmPort):
    """Both arms on two CAN interfaces, joints in the order of the arx_r5 spec: left 6 + gripper, right 6 + gripper."""

    def __init__(
        self,
        spec: RobotSpec,
        *,
        left_can: str = "can0",
        right_can: str = "can1",
        gripper_open_rad: float = 5.03,
        arm_type: int = 0,
        network: Path = _NETWORK,
        clock: Callable[[], float] = time.time,
        steady_clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if left_can == right_can:
            raise ArmPortError(f"both arms are set to {left_can!r}; give each arm its own CAN interface")
        if gripper_open_rad == 0.0:
            raise ArmPortError("gripper_open_rad is 0, expected the motor angle at full opening, such as 5.03 or -3.4")
        self.spec = spec
        self._interfaces = {"left": left_can, "right": right_can}
        self._open_rad = gripper_open_rad
        self._open_m = float(spec.upper[_JOINTS])
        self._arm_type = arm_type
        self._network = network
        self._clock = clock
        self._steady_clock = steady_clock
        self._sleep = sleep
        self._heard: dict[str, tuple[str, float]] = {}
        self._arms: list[Any] = []

    def connect(self) -> None:
        """Open both interfaces, and command the measured pose so that the arms hold. Raises ArmPortError.

        Called again it keeps the open arms: a second SingleArm on one interface would command against the first. When
        an arm sends nothing its pose is unknown: nothing is commanded, and arms just opened are damped and let go.
        """
        for side, interface in self._interfaces.items():
            self._check_interface(side, interface)
        self._heard = {}
        known = bool(self._arms)
        try:
            if not known:
                self._open()
            self._await_frames()
        except ArmPortError:
            if not known:
                with contextlib.suppress(ArmPortError):
                    self.close()
            raise
        self.stop()

    def read(self) -> JointState:
        """Return the measured joints; efforts are NaN (the SDK gives motor currents).

        The SDK repeats its last values when the bus falls silent, so the count of received frames is watched.
        Raises ArmPortError.
        """
        for side, interface in self._interfaces.items():
            self._listen(side, interface)
        positions = np.concatenate([self._seven(arm.get_joint_positions, "positions") for arm in self._connected()])
        velocities = np.concatenate([self._seven(arm.get_joint_velocities, "velocities") for arm in self._connected()])
        return JointState(
            positions=positions,
            velocities=velocities,
            efforts=np.full(self.spec.width, np.nan),
            stamp_s=self._clock(),
        )

    def write(self, positions: Array) -> None:
        """Command both arms. Raises ArmPortError when one does not take it; the other one is commanded all the same."""
        failure: Exception | None = None
        for place, arm in enumerate(self._connected()):
            seven = positions[place * (_JOINTS + 1) : (place + 1) * (_JOINTS + 1)]
            try:
                arm.set_joint_positions(seven[:_JOINTS].tolist())
                arm.set_catch_pos(float(seven[_JOINTS]) * self._open_rad / self._open_m)
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise ArmPortError(
                f"the SDK refused a command: {failure}; check the CAN interface with `ip link`"
            ) from failure

    def stop(self) -> None:
        """Command the measured pose; an arm that cannot be read or is far outside its limits goes into protect mode.

        An arm that is silent keeps its last command: where the SDK says that it is, it was a while ago. Raises
        ArmPortError when an arm takes neither; the other one is stopped all the same.
        """
        self._do_with_each(self._connected(), self._hold)

    def close(self) -> None:
        """Put both arms into the SDK's protect mode, which damps them, and let them go.

        Raises ArmPortError when an arm does not take it; the other one is damped all the same.
        """
        arms, self._arms = self._arms, []
        self._do_with_each(arms, _damp)

    def _open(self) -> None:
        single_arm = _load_single_arm()
        for side, interface in self._interfaces.items():
            config = {
                "can_port": interface,
                "type": self._arm_type,
                "num_joints": _JOINTS + 1,
                "dt": 1.0 / self.spec.rate_hz,
            }
            try:
                self._arms.append(single_arm(config))
            except Exception as error:
                raise ArmPortError(f"the {side} arm on {interface} does not start: {error}; check its power") from error

    def _await_frames(self) -> None:
        """Wait until the SDK's readings are true, which takes some frames. Raises ArmPortError when none came."""
        before = [self._frames(side, interface) for side, interface in self._interfaces.items()]
        self._sleep(_SETTLE_S)
        for (side, interface), frames in zip(self._interfaces.items(), before, strict=True):
            if self._frames(side, interface) == frames:
                raise ArmPortError(
                    f"the {side} arm on {interface} sent nothing for {_SETTLE_S} s; check its power and emergency "
                    f"stop: `candump {interface}` must show frames"
                )

    def _do_with_each(self, arms: Sequence[Any], act: Callable[[Any, str], None]) -> None:
        """Do `act`, which stops an arm, with every arm; then raise the first failure as ArmPortError."""
        failures: list[tuple[str, Exception]] = []
        for (side, interface), arm in zip(self._interfaces.items(), arms, strict=False):
            try:
                act(arm, interface)
            except Exception as error:
                failures.append((f"the {side} arm on {interface}", error))
        if failures:
            who, error = failures[0]
            raise ArmPortError(
                f"{who} cannot be stopped: {error}; use the emergency stop, then check the CAN interface with `ip link`"
            ) from error

    def _hold(self, arm: Any, interface: str) -> None:
        frames, heard_s = self._heard.get(interface, ("", math.inf))
        with contextlib.suppress(OSError):
            silent = self._rx_packets(interface).read_text() == frames
            if silent and self._steady_clock() - heard_s > _SILENCE_S:
                return
        try:
            seven = np.asarray(arm.get_joint_positions(), np.float64)
            if seven.shape != (_JOINTS + 1,) or not np.isfinite(seven).all():
                raise ValueError(f"positions are {seven}")
            pose = np.clip(seven[:_JOINTS], self.spec.lower[:_JOINTS], self.spec.upper[:_JOINTS])
            if np.abs(pose - seven[:_JOINTS]).max() > OUTSIDE_RAD:
                raise ValueError(f"positions are {seven}: leading them back into the limits would be one long step")
            arm.set_joint_positions(pose.tolist())
        except Exception:
            arm.protect_mode()

    def _connected(self) -> list[Any]:
        if not self._arms:
            raise ArmPortError("the arms are not connected; call connect first")
        return self._arms

    def _seven(self, getter: Callable[[], Any], what: str) -> Array:
        try:
            values = np.array(getter(), np.float64)
        except Exception as error:
            raise ArmPortError(
                f"the SDK cannot read {what}: {error}; check the CAN interface with `ip link`"
            ) from error
        if values.shape != (_JOINTS + 1,):
            raise ArmPortError(
                f"the SDK gave {what} of shape {values.shape}, expected ({_JOINTS + 1},); check its version"
            )
        values[_JOINTS] *= self._open_m / self._open_rad
        return values

    def _frames(self, side: str, interface: str) -> str:
        """Return how many frames the interface has received, as the kernel writes it."""
        try:
            return self._rx_packets(interface).read_text()
        except OSError as error:
            raise ArmPortError(
                f"CAN interface {interface!r} of the {side} arm is gone ({error}); "
                "plug it in, then call driver/clear_fault"
            ) from error

    def _rx_packets(self, interface: str) -> Path:
        return self._network / interface / "statistics" / "rx_packets"

    def _listen(self, side: str, interface: str) -> None:
        frames = self._frames(side, interface)
        now_s = self._steady_clock()
        if self._heard.get(interface, ("", 0.0))[0] != frames:
            self._heard[interface] = (frames, now_s)
        elif now_s - self._heard[interface][1] > _SILENCE_S:
            raise ArmPortError(
                f"the {side} arm on {interface} sent nothing for {now_s - self._heard[interface][1]:.2f} s, "
                f"limit {_SILENCE_S} s; check its power and emergency stop, then call driver/clear_fault"
            )

    def _check_interface(self, side: str, interface: str) -> None:
        folder = self._network / interface
        if not folder.exists():
            present = sorted(
                item.name for item in self._network.iterdir() if item.name.startswith(("can", "vcan", "slcan"))
            )
            there = f"there are {', '.join(present)}" if present else "there is none"
            raise ArmPortError(
                f"no CAN interface {interface!r} for the {side} arm ({there}); plug the adapter in, then "
                f"`sudo ip link set {interface} up type can bitrate 1000000`"
            )
        state = (folder / "operstate").read_text().strip() if (folder / "operstate").exists() else "unknown"
        if state == "down":
            raise ArmPortError(
                f"CAN interface {interface!r} of the {side} arm is down; "
                f"`sudo ip link set {interface} up type can bitrate 1000000`"
            )


def _damp(arm: Any, interface: str) -> None:
    del interface
    arm.protect_mode()


def _load_single_arm() -> Callable[[dict[str, Any]], Any]:
    try:
        found = importlib.util.find_spec("arx_r5_sdk")
        for folder in (found.submodule_search_locations or []) if found else []:
            library = Path(folder) / "lib" / "libarx_r5_src.so"
            if library.exists():
                # The SDK's extension names this library without a path; loaded beforehand it is found.
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module("arx_r5_sdk.single_arm").SingleArm
    except (ImportError, OSError) as error:
        raise ArmPortError(
            f"the ARX SDK cannot be imported ({error}); `pip install --no-deps arx-r5-sdk==1.0.0` and install ROS's "
            "kdl_parser (ros-jazzy-kdl-parser)"
        ) from error
