# SPDX-License-Identifier: Apache-2.0
"""Which reports on /diagnostics are those of one's own driver."""

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from chatvla_policy.ros.driver_watch import DriverWatch


def report(node: str, message: str) -> DiagnosticArray:
    status = DiagnosticStatus(name=f"{node}: arm", hardware_id="arx_r5", level=DiagnosticStatus.ERROR, message=message)
    return DiagnosticArray(status=[status])


@pytest.mark.parametrize(("own", "other"), [("/", "/two"), ("/two", ""), ("/two", "/tw"), ("/two", "/two/left")])
def test_fault_of_a_driver_in_another_namespace_is_not_taken(own: str, other: str) -> None:
    watch = DriverWatch("arx_r5", namespace=own)
    watch.on_diagnostics(report(f"{other}/driver", "stopped: elsewhere"), 0.0)
    assert watch.fault == ""
    watch.on_diagnostics(report(f"{own.rstrip('/')}/driver", "stopped: here"), 0.1)
    assert watch.fault == "stopped: here"
