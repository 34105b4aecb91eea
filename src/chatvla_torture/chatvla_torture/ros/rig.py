# SPDX-License-Identifier: Apache-2.0
"""A bench of real node processes in a ROS domain of its own, with a node of ours among them.

The driver is the ARX R5's own with a controller that checks itself (audit.py); all others are those that launch starts.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from chatvla_cli.launch_graph import on_this_host
from chatvla_cli.substitutions import package_share
from chatvla_torture.audit import AUDIT_FILE, AuditReader, AuditReport
from chatvla_torture.processes import Kept, ProcessSet, wait_until

__all__ = ["NAMESPACE", "Rig", "free_domain"]

NAMESPACE = "torture"
_DOMAINS = range(215, 232)
"""Those that few use: people count from 0. Their ports lie above those that Linux gives to connections."""
_MODULES = {
    "sim": "chatvla_sim.ros.sim_node",
    "driver": "chatvla_torture.ros.audited_driver_node",
    "expert": "chatvla_sim.ros.expert_node",
    "policy": "chatvla_policy.ros.policy_node",
    "rollout": "chatvla_eval.ros.rollout_node",
}
_READY = {
    "sim": "math_match runs",
    "expert": "is ready",
    "policy": "the golden input differs",
    "recorder": "recording into",
}
START_S = 180.0


class Rig:
    """Node processes, and one node of this process that is spun in the background."""

    def __init__(self, folder: Path, *, number: int = 0) -> None:
        """`number` sets rigs of one process apart."""
        self.domain = free_domain(os.getpid() + 7 * number)
        self.folder = folder
        self.audit_file = folder / "audit.jsonl"
        self._audit = AuditReader(self.audit_file)
        local = on_this_host(package_share("chatvla", os.environ) / "launch")
        self.processes = ProcessSet(
            folder,
            {
                **local,
                "ROS_DOMAIN_ID": str(self.domain),
                "MUJOCO_GL": os.environ.get("MUJOCO_GL", "osmesa"),
                AUDIT_FILE: str(self.audit_file),
            },
        )
        self._before = {name: os.environ.get(name) for name in local}
        os.environ.update(local)
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context, domain_id=self.domain)
        self.node = Node("attacker", namespace=NAMESPACE, context=self.context, use_global_arguments=False)
        self.driver_reports: list[dict[str, str]] = []
        """Values of the driver's diagnostics, newest last."""
        self.commanded: np.ndarray | None = None
        """What the driver last commanded [rad, m], shape (D,)."""
        self.node.create_subscription(JointState, "joint_command", self._on_command, 2)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._triggers = {name: self.node.create_client(Trigger, f"driver/{name}") for name in ("stop", "clear_fault")}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End processes and node; remove what they left."""
        self.processes.close()
        self._stop.set()
        self._thread.join(5.0)
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
        self.processes.remove_leftovers()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def start(self, name: str, *, parameters: dict[str, Any] | None = None, words: Sequence[str] = ()) -> Kept:
        """Start the node `name` of the bench; `recorder` is `./chatvla record`, which takes `words`."""
        if name == "recorder":
            command = [sys.executable, "-m", "chatvla_eval.record_cli", "--namespace", NAMESPACE, *words]
        else:
            command = [sys.executable, "-m", _MODULES[name], "--ros-args", "-r", f"__ns:=/{NAMESPACE}"]
            command += ["-r", f"__node:={name}"]
            for key, value in (parameters or {}).items():
                command += ["-p", f"{key}:={str(value).lower() if isinstance(value, bool) else value}"]
        return self.processes.start(name, command)

    def wait_ready(self, *names: str, timeout_s: float = START_S) -> None:
        """Wait until the nodes run. Raises RuntimeError with a node's last lines when one does not."""
        for name in names:
            if name == "driver":
                ready = wait_until(lambda: self.phase() in ("holding", "playing", "settling"), timeout_s)
            elif name == "rollout":
                ready = True
            else:
                ready = self.processes.wait_for(name, _READY[name], timeout_s)
            if not ready or not self.processes[name].alive:
                raise RuntimeError(f"{name} did not start: {self.processes[name].text()[-1000:]}")

    def phase(self) -> str:
        """Return what the driver last said it does; "" before the first report."""
        return self.driver_reports[-1].get("phase", "") if self.driver_reports else ""

    def audit(self) -> AuditReport:
        """Return what the driver's audit found."""
        return self._audit.read()

    def trigger(self, name: str, timeout_s: float = 10.0) -> Any:
        """Call driver/`name` and return the answer; None when none came."""
        client = self._triggers[name]
        if not client.wait_for_service(timeout_s):
            return None
        return self.result(client.call_async(Trigger.Request()), timeout_s)

    def result(self, future: Future, timeout_s: float) -> Any:
        """Return what the future holds; None when it does not come in time."""
        wait_until(future.done, timeout_s, 0.01)
        return future.result() if future.done() else None

    def call(self, kind: type[Any], name: str, request: Any, timeout_s: float = 10.0) -> Any:
        """Call a service once and return the answer; None when none came."""
        client = self.node.create_client(kind, name)
        try:
            if not client.wait_for_service(timeout_s):
                return None
            return self.result(client.call_async(request), timeout_s)
        finally:
            self.node.destroy_client(client)

    def now_s(self) -> float:
        """Return ROS time [s]."""
        return self.node.get_clock().now().nanoseconds * 1e-9

    def until(self, condition: Callable[[], object], timeout_s: float) -> bool:
        """Return whether the condition became true in time."""
        return wait_until(condition, timeout_s)

    def _spin(self) -> None:
        while not self._stop.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                return
            except Exception:  # A hostile message that we sent comes back to us too.
                continue

    def _on_command(self, msg: JointState) -> None:
        self.commanded = np.array(msg.position)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name == f"/{NAMESPACE}/driver: arm":
                self.driver_reports.append({item.key: item.value for item in status.values})
                del self.driver_reports[:-100]


def free_domain(start: int) -> int:
    """Return a ROS domain in whose ports nobody listens here, counting from number `start` on."""
    lines = Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]
    taken = {(int(line.split()[1].rpartition(":")[2], 16) - 7400) // 250 for line in lines}
    wanted = [_DOMAINS[(start + k) % len(_DOMAINS)] for k in range(len(_DOMAINS))]
    return next((domain for domain in wanted if domain not in taken), wanted[0])
