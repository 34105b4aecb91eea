# SPDX-License-Identifier: Apache-2.0
"""Take a checkpoint folder through all checks that the policy node makes before it acts."""

from __future__ import annotations

from pathlib import Path

from chatvla_control.robot_spec import robot_spec
from chatvla_policy.ros.live_graph import camera_topic, check_spec
from chatvla_policy.systems import load_policy

__all__ = ["open_checkpoint"]


def open_checkpoint(folder: Path) -> str:
    """Return what was loaded; raises what the node catches: ValueError, RuntimeError or OSError."""
    policy = load_policy(folder)
    setup = policy.setup  # type: ignore[attr-defined]
    check_spec(setup.spec)
    for view in setup.cameras:
        camera_topic(view)
    policy.check_golden()  # type: ignore[attr-defined]
    return f"loaded for {robot_spec(setup.spec.name).name}"
