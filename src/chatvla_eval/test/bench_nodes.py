# SPDX-License-Identifier: Apache-2.0
"""Start the nodes of a bench as processes, stop them, and stand beside them as an operator."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from chatvla_control.ros.spin import serving

NAMESPACE = "rollout_test"
SIMULATOR = ["-m", "chatvla_sim.ros.sim_node"]
DRIVER = ["-c", "import sys; from arx_r5_driver.driver_node import main; sys.exit(main())"]
EXPERT = ["-m", "chatvla_sim.ros.expert_node"]


def node(*command, namespace=NAMESPACE, **parameters):
    """Start a node as a process in the test's namespace."""
    ros = ["--ros-args", "-r", f"__ns:=/{namespace}"]
    for name, value in parameters.items():
        ros += ["-p", f"{name}:={value}"]
    return subprocess.Popen(
        [sys.executable, *command, *ros], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def rollout(**parameters):
    return node("-m", "chatvla_eval.ros.rollout_node", **parameters)


def stop(*processes):
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until(condition, timeout_s=180.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@contextmanager
def beside(namespace=NAMESPACE, name="operator", ends=()):
    """Yield a served node among those of the bench; `ends` are called when it is served no more."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=int(os.environ["ROS_DOMAIN_ID"]))
    peer = Node(name, namespace=namespace, context=context)
    try:
        with serving(peer):
            yield peer
    finally:
        for end in ends:
            end()
        peer.destroy_node()
        rclpy.try_shutdown(context=context)


@contextmanager
def operator():
    """Yield a node beside the bench, and a list that holds what the driver says of its fault, newest last."""
    faults: list[str] = []

    def hear(msg: DiagnosticArray) -> None:
        values = {item.key: item.value for status in msg.status for item in status.values}
        if "fault" in values:
            faults.append(values["fault"])

    with beside() as peer:
        peer.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
        yield peer, faults
