# SPDX-License-Identifier: Apache-2.0
"""`./chatvla launch math_match policy:=FOLDER`: a checkpoint starts in the graph, and everything ends on Ctrl-C."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from chatvla_policy.systems.untrained import save_untrained

from .test_launch import Launch, needs_install


@needs_install
@pytest.mark.slow
@pytest.mark.usefixtures("ros_domain")
def test_checkpoint_starts_in_the_graph(tmp_path: Path) -> None:
    save_untrained(tmp_path / "untrained", robot="arx_r5")
    launch = Launch(f"policy:={tmp_path / 'untrained'}", "trials:=0")
    try:
        launch.wait_for("untrained is configured for arx_r5 with top", 60.0)
        launch.wait_for("the golden input differs by", 10.0)
    finally:
        launch.process.send_signal(signal.SIGINT)
        launch.process.wait(timeout=20.0)
    assert "still runs" not in launch.text()


@needs_install
@pytest.mark.slow
@pytest.mark.usefixtures("ros_domain")
def test_robot_picks_the_card_that_a_forced_text_names(tmp_path: Path) -> None:
    force = "force:=I should pick the left card."
    launch = Launch("trials:=2", "split:=in_domain", "seed:=8", force, f"out:={tmp_path}")
    assert launch.process.wait(timeout=300.0) == 0, launch.text()
    trials = json.loads((tmp_path / "results.json").read_text())["trials"]
    assert [trial["text"] for trial in trials] == ["I should pick the left card."] * 2
    left = [next(card["value"] for card in trial["cards"] if card["place"] == "left") for trial in trials]
    # Left to itself the robot would pick the right answer's card, which stands elsewhere.
    assert all(value != trial["right_answer"] for value, trial in zip(left, trials, strict=True))
    taken = [trial["picked"] for trial in trials]
    # How often it grips is for ./chatvla eval to say; a grip that slips ("") says nothing about what the robot follows.
    assert all(value in ("", wanted) for value, wanted in zip(taken, left, strict=True)), taken
    assert any(taken)
