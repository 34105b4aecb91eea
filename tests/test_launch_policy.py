# SPDX-License-Identifier: Apache-2.0
"""`./chatvla launch math_match policy:=FOLDER`: a checkpoint starts in the graph, and everything ends on Ctrl-C."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from chatvla_policy.systems.untrained import save_untrained

from .test_launch import Launch, needs_install


@needs_install
@pytest.mark.slow
@pytest.mark.usefixtures("ros_domain")
def test_checkpoint_starts_in_the_graph(tmp_path: Path) -> None:
    save_untrained(tmp_path / "untrained")
    launch = Launch(f"policy:={tmp_path / 'untrained'}", "trials:=0")
    try:
        launch.wait_for("untrained is configured for arx_r5 with top", 60.0)
        launch.wait_for("the golden input differs by", 10.0)
    finally:
        launch.process.send_signal(signal.SIGINT)
        launch.process.wait(timeout=20.0)
    assert "still runs" not in launch.text()
