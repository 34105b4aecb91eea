# SPDX-License-Identifier: Apache-2.0
"""Mark beginning and end of each trial on a topic, so that its bag can be scored as the rollout was.

The marks say what no other topic says: which trial was asked for, when the rollout looked last, and how the instruction
ended. They carry no score; scores are computed from the bag's own messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from chatvla_control.scene import SceneTruth
from chatvla_eval.bags.topics import TRIAL_TOPIC
from chatvla_eval.session import TrialSetup, Watch

__all__ = ["TrialMarks", "read_mark"]


class TrialMarks:
    """Publishes the marks of one rollout."""

    def __init__(self, node: Node) -> None:
        qos = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = node.create_publisher(String, TRIAL_TOPIC, qos)

    def begin(self, setup: TrialSetup, truth: SceneTruth) -> None:
        """Mark the beginning of the trial of `setup`, whose scene is `truth`."""
        self._publish({"event": "begin", "setup": asdict(setup), "trial": truth.trial, "stamp_s": truth.stamp_s})

    def end(self, watch: Watch, *, policy: str, privileged: bool) -> None:
        """Mark the end of the trial: its last look."""
        self._publish(
            {
                "event": "end",
                "trial": watch.truth.trial,
                "stamp_s": watch.truth.stamp_s,
                "elapsed_s": watch.elapsed_s,
                "texts": len(watch.texts),
                "timed_out": watch.timed_out or not watch.finished,
                "error": watch.error,
                "refused": watch.refused,
                "counts": dict(watch.counts),
                "policy": policy,
                "privileged": privileged,
            }
        )

    def _publish(self, mark: Mapping[str, Any]) -> None:
        self._publisher.publish(String(data=json.dumps(mark)))


def read_mark(text: str) -> dict[str, Any]:
    """Return a mark's content. Raises ValueError for anything else."""
    mark = json.loads(text)
    if not isinstance(mark, dict) or mark.get("event") not in ("begin", "end"):
        raise ValueError(f"{TRIAL_TOPIC} holds no mark of a trial: {text[:80]!r}")
    return mark
