# SPDX-License-Identifier: Apache-2.0
"""The rollout through ROS when nodes are killed and started again, beside another bench, and at Ctrl-C."""

import json
import signal
import subprocess

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from chatvla_cli.process_group import KILL_AFTER_S
from chatvla_control.ros.qos import NEWEST_LATCHED
from chatvla_msgs.msg import Reasoning

from .bench_nodes import DRIVER, EXPERT, SIMULATOR, beside, node, rollout, stop, wait_until

NAMESPACE = "restart_test"


@pytest.fixture
def bench(ros_domain):
    processes = {
        name: node(*command, namespace=NAMESPACE)
        for name, command in (("simulator", SIMULATOR), ("driver", DRIVER), ("policy", EXPERT))
    }
    yield processes
    stop(*processes.values())


def restart(bench, name, command):
    bench[name].kill()
    bench[name].communicate()
    bench[name] = node(*command, namespace=NAMESPACE)


def test_killed_nodes_end_their_trial_by_name_and_an_interrupt_within_a_trial_keeps_the_results(bench, tmp_path):
    results, texts = tmp_path / "results.json", []
    with beside(NAMESPACE) as peer:
        peer.create_subscription(Reasoning, "reasoning", texts.append, NEWEST_LATCHED)
        # Another bench in another namespace, whose equal driver holds on a fault.
        reports = peer.create_publisher(DiagnosticArray, "/diagnostics", 10)
        values = [KeyValue(key=key, value=value) for key, value in (("accepted", "0"), ("fault", "stopped: elsewhere"))]
        other = DiagnosticStatus(
            name="/other/driver: arm", hardware_id="arx_r5", level=DiagnosticStatus.ERROR, message="held", values=values
        )
        peer.create_timer(0.05, lambda: reports.publish(DiagnosticArray(status=[other])))

        running = rollout(namespace=NAMESPACE, trials=4, seed=7, out=tmp_path, timeout=60.0, wait=60.0)
        for count, (name, command) in enumerate((("policy", EXPERT), ("simulator", SIMULATOR)), start=1):
            wait_until(lambda: texts)
            restart(bench, name, command)
            wait_until(lambda count=count: results.exists() and len(json.loads(results.read_text())["trials"]) == count)
            texts.clear()
        wait_until(lambda: len(json.loads(results.read_text())["trials"]) == 3)
        texts.clear()
        wait_until(lambda: texts)
        running.send_signal(signal.SIGINT)
        try:
            running.wait(timeout=KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            running.kill()  # As the launcher does.
        output, _ = running.communicate()
    assert running.returncode == 130, output
    assert "INCOMPLETE" in output
    first, second, third = json.loads(results.read_text())["trials"]
    # Which of the two is seen first is the middleware's affair.
    told = ("error:the policy was restarted during the trial, or a second one came", "error:the policy went away")
    assert first["cause"].startswith(told), output
    assert second["cause"].startswith(("error:2 simulators publish", "error:sim/bench_state is silent")), output
    assert not third["cause"].startswith(("error:2 simulators", "error:DRIVER_FAULT", "error:the policy")), output
