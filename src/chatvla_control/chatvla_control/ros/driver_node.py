# SPDX-License-Identifier: Apache-2.0
"""Drive an arm: action_chunk in, commands to an ArmPort, joint_states and joint_command out, faults to /diagnostics.

The same node serves the real robot and the simulator; only the port differs. All judgement is in arm_controller.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState as JointStateMsg
from std_srvs.srv import Trigger

from chatvla_control.arm_controller import ArmController, ControllerStatus, DriverPhase
from chatvla_control.arm_port import ArmPort, JointState
from chatvla_control.chunk_check import CheckSettings, ChunkFault, FaultCode
from chatvla_control.ros.control_loop import ControlLoop, Tick
from chatvla_control.ros.convert import ConversionError, action_chunk_from_msg, joint_state_to_msg
from chatvla_control.ros.parameters import declare
from chatvla_control.ros.qos import NEWEST
from chatvla_control.ros.spin import serving, spin_until, stop_on_signals
from chatvla_msgs.msg import ActionChunk as ActionChunkMsg

__all__ = ["ArmDriverNode", "run_driver"]

_REPORT_EVERY_S = 2.0
_NICENESS = -10
_FIELD_CODES = {"actions": FaultCode.WRONG_SIZE, "mode": FaultCode.UNKNOWN_MODE}


class ArmDriverNode(Node):
    """The driver. `port_factory` gets the node, for parameters and topics of its own, and returns the port."""

    def __init__(
        self,
        port_factory: Callable[[Node], ArmPort],
        *,
        node_name: str = "driver",
        controller: type[ArmController] = ArmController,
        on_crash: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_crash` is called, from another thread, when the control loop ended by an error."""
        super().__init__(node_name)
        self._port = port_factory(self)
        self._spec = self._port.spec
        state_timeout_s = declare(
            self, "state_timeout_s", 0.25, "Hold when the joint states are older than this, s.", low=0.02, high=5.0
        )
        max_age_s = declare(
            self, "max_age_s", 2.0, "Refuse chunks that rest on an older observation, s.", low=0.05, high=30.0
        )
        priority = declare(
            self,
            "realtime_priority",
            20,
            "SCHED_FIFO priority of the control loop where the system allows it; 0 keeps the default.",
            low=0,
            high=90,
        )
        self._reported_s: dict[FaultCode, float] = {}
        self._announced: tuple[DriverPhase, str] | None = None
        self._joint_states = self.create_publisher(JointStateMsg, "joint_states", 10)
        self._joint_command = self.create_publisher(JointStateMsg, "joint_command", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._loop = ControlLoop(
            self._port,
            controller(
                self._spec,
                check=CheckSettings(max_age_s=max_age_s),
                cartesian=self._port.cartesian,
                rate_hz=self._port.rate_hz,
            ),
            clock=lambda: self.get_clock().now().nanoseconds * 1e-9,
            on_tick=self._publish_tick,
            state_timeout_s=state_timeout_s,
            realtime_priority=priority,
            on_crash=on_crash,
        )
        self.create_subscription(ActionChunkMsg, "action_chunk", self._on_chunk, NEWEST)
        self.create_service(Trigger, "driver/stop", self._on_stop)
        self.create_service(Trigger, "driver/clear_fault", self._on_clear_fault)
        # Steady: a system clock that is set back must not silence the diagnostics.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        self._announcing = self.create_timer(0.05, self._announce_change, clock=steady)
        self._loop.start()

    def close(self) -> None:
        """Brake, hold, close the port and destroy the node; its callbacks are served until the arm rests."""
        # That it stops now is no fault to report.
        self._announcing.cancel()
        with serving(self):
            self._loop.close()
        self.destroy_node()

    @property
    def crash(self) -> str:
        """Why the control loop ended by itself; empty otherwise."""
        return self._loop.trouble()[0]

    def _on_chunk(self, msg: ActionChunkMsg) -> None:
        try:
            fault = self._loop.accept(action_chunk_from_msg(msg))
        except ConversionError as error:
            fault = ChunkFault(code=_FIELD_CODES.get(error.field, FaultCode.MALFORMED), message=str(error))
            self._loop.refuse(fault)
        if fault is not None and time.monotonic() - self._reported_s.get(fault.code, -np.inf) > _REPORT_EVERY_S:
            self._reported_s[fault.code] = time.monotonic()
            self.get_logger().warning(f"refused chunk {msg.id!r:.60} ({fault.code.value}): {fault.message}")

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._loop.stop("driver/stop was called")
        response.success, response.message = True, "the arm brakes and holds until driver/clear_fault"
        return response

    def _on_clear_fault(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        cleared = self._loop.clear_fault()
        response.success = True
        response.message = "there was no fault" if cleared is None else f"cleared: {cleared}"
        return response

    def _publish_tick(self, tick: Tick) -> None:
        """Publish what the control loop's thread saw and did; publishers are thread-safe."""
        if not self.context.ok():
            return
        names = self._spec.joint_names
        if tick.state is not None:
            self._joint_states.publish(joint_state_to_msg(names, tick.state))
        if tick.command is not None:
            unknown = np.full(len(names), np.nan)
            commanded = JointState(
                positions=tick.command.positions,
                velocities=tick.command.velocities,
                efforts=unknown,
                stamp_s=tick.now_s,
            )
            self._joint_command.publish(joint_state_to_msg(names, commanded))

    def _announce_change(self) -> None:
        status, _ = self._loop.status()
        seen = (DriverPhase.HOLDING if status.phase in _MOVING else status.phase, status.fault)
        if seen == self._announced:
            return
        if status.fault and (self._announced is None or status.fault != self._announced[1]):
            self.get_logger().error(f"fault: {status.fault}; holding until driver/clear_fault")
        self._announced = seen
        self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        status, waiting_for = self._loop.status()
        jitter = self._loop.jitter()
        _, unsaid, why = self._loop.trouble()
        values = {
            "phase": status.phase.value,
            "fault": status.fault,
            "waiting_for": waiting_for,
            "last_refusal": status.last_refusal,
            "accepted": str(status.accepted),
            **{f"refused.{code}": str(count) for code, count in sorted(status.refused.items())},
            "ticks": str(status.ticks),
            "deadline_misses": str(status.deadline_misses),
            "tracking_error_rad": f"{status.tracking_error_rad:.4f}",
        }
        if unsaid:
            values |= {"ticks_unpublished": str(unsaid), "unpublished_because": f"{why:.200}"}
        if jitter is not None:
            values |= {f"jitter_{name}_ms": f"{getattr(jitter, f'{name}_ms'):.3f}" for name in ("p50", "p99", "max")}
        report = DiagnosticStatus(
            name=f"{self.get_fully_qualified_name()}: arm",
            hardware_id=self._spec.name,
            level=_level(status),
            message=status.fault or waiting_for or status.phase.value,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[report])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


_MOVING = (DriverPhase.HOLDING, DriverPhase.PLAYING, DriverPhase.SETTLING)


def _level(status: ControllerStatus) -> bytes:
    if status.phase is DriverPhase.FAULT:
        return DiagnosticStatus.ERROR
    return DiagnosticStatus.WARN if status.phase is DriverPhase.NO_STATE else DiagnosticStatus.OK


def run_driver(
    port_factory: Callable[[Node], ArmPort],
    *,
    node_name: str = "driver",
    controller: type[ArmController] = ArmController,
    args: Sequence[str] | None = None,
) -> int:
    """Run a driver until SIGINT or SIGTERM; return the exit code. `controller` may be one that watches itself.

    Errors while starting (a port that cannot be made, a bad parameter) are printed as one sentence.
    """
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    stop = stop_on_signals()
    # The loop shares the interpreter with the callbacks: those must not be starved either, where the system allows it.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    # A waiting control loop gets the interpreter within 0.5 ms instead of 5.
    sys.setswitchinterval(0.0005)
    node: ArmDriverNode | None = None
    try:
        node = ArmDriverNode(port_factory, node_name=node_name, controller=controller, on_crash=stop.set)
        # Garbage collection leaves out what exists now: looking through all of it holds the loop up for 10 ms.
        gc.collect()
        gc.freeze()
        spin_until(node, stop)
        if node.crash:
            print(f"{node_name}: {node.crash}; the arm was stopped and let go of", file=sys.stderr)
        return 1 if node.crash else 0
    except (ValueError, RuntimeError) as error:
        print(f"{node_name}: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.close()
        try_shutdown()
