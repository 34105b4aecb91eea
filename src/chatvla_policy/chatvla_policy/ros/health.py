# SPDX-License-Identifier: Apache-2.0
"""Say on /diagnostics what the policy node does: state, inputs, last failure, stage times, counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from chatvla_policy.ros.acting import Acting
from chatvla_policy.runtime.timing import StageTimes

__all__ = ["health_report"]


def health_report(
    node: Node, *, state: str, checkpoint: str, acting: Acting | None, refusal: str = ""
) -> DiagnosticArray:
    """Return the report. `refusal` is why configuring was refused, "" otherwise."""
    values: dict[str, str] = {"state": state, "checkpoint": checkpoint}
    level, message = DiagnosticStatus.OK, state
    if refusal:
        level, message = DiagnosticStatus.ERROR, refusal
    if acting is not None:
        with acting.lock:
            fault = acting.scheduler.fault(acting.now_s())
            values |= _values(acting)
            times = acting.times.copy()
        values |= _stage_values(times)
        values["input_fault"] = fault.message if fault else ""
        if acting.error:
            level, message = DiagnosticStatus.ERROR, acting.error
        elif fault is not None and state == "active":
            level, message = DiagnosticStatus.WARN, fault.message
    report = DiagnosticStatus(
        name=f"{node.get_fully_qualified_name()}: policy",
        hardware_id=checkpoint,
        level=level,
        message=message,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
    array = DiagnosticArray(status=[report])
    array.header.stamp = node.get_clock().now().to_msg()
    return array


def _values(acting: Acting) -> Mapping[str, str]:
    scheduler = acting.scheduler
    values = {
        "instruction": scheduler.instruction or "",
        "forced": scheduler.forced or "",
        "reasoning_source": acting.reasoning.source.name if acting.reasoning else "",
        "commit_s": f"{scheduler.commit_s:.3f}",
        "last_failure": acting.error,
    }
    values |= {name: str(count) for name, count in asdict(scheduler.counts).items()}
    return values | {f"policy_{name}": str(count) for name, count in acting.policy_counts.items()}


def _stage_values(times: StageTimes) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for source in ("", *times.sources()):
        prefix = f"{source}_" if source else ""
        for stage, (middle, high) in times.percentiles(source or None).items():
            values |= {f"{prefix}{stage}_p50_ms": f"{middle:.2f}", f"{prefix}{stage}_p99_ms": f"{high:.2f}"}
    return values
