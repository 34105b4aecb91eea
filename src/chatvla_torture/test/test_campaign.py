# SPDX-License-Identifier: Apache-2.0
"""The short form of `./chatvla torture`, and that a campaign notices what breaks."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from chatvla_cli.shared_memory import SHM, files_in_use
from chatvla_control.arm_controller import ArmController
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_torture.audit import AUDIT_FILE, AuditedController, read_audit
from chatvla_torture.campaign import Campaign, PartRun
from chatvla_torture.cli import main
from chatvla_torture.parts import Part
from chatvla_torture.processes import wait_until
from chatvla_torture.promise import case_seed
from chatvla_torture.ros.kills import cases_of
from chatvla_torture.ros.rig import free_domain

SPEC = robot_spec("arx_r5")


def broken_part(run) -> None:
    """Break in case 3 of 5, whatever came before it."""
    promise = run.promise("odd", "no case is the third", planned=5)
    for case in run.cases(5):
        promise.require(case.number != 3, f"case {case.number} drew {case.random().integers(100)}", case)
        promise.hold()


BROKEN = Part(name="broken", summary="", target=f"{__name__}:broken_part", share=0.1)


def chunk(rows: np.ndarray, *, now_s: float) -> ActionChunk:
    return ActionChunk(
        id="1",
        actions=rows,
        joint_names=SPEC.joint_names,
        robot=SPEC.name,
        mode=ActionMode.JOINT_POSITION,
        stamp_s=now_s,
        start_s=now_s,
        step_period_s=0.02,
        valid_until_s=now_s + 1.0,
        policy="test",
    )


def drive(controller: ArmController, rows: np.ndarray, *, ticks: int) -> None:
    home = np.array(SPEC.home)
    controller.step(now_s=0.0, measured=home)
    assert controller.accept(chunk(rows, now_s=0.0), now_s=0.0, measured=home) is None
    measured = home
    for tick in range(1, ticks):
        command = controller.step(now_s=0.02 * tick, measured=measured, elapsed_s=0.02)
        assert command is not None
        measured = command.positions


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[AuditedController, Path]:
    monkeypatch.setenv(AUDIT_FILE, str(tmp_path / "audit.jsonl"))
    return AuditedController(SPEC), tmp_path / "audit.jsonl"


def slow_rows() -> np.ndarray:
    way = np.zeros((20, SPEC.width))
    way[:, 0] = np.linspace(0.0, 0.05, 20)
    return np.array(SPEC.home) + way


def test_short_campaign_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["0.01", "--only", "chunks", "--seed", "1", "--jobs", "1", "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"held +chunks\.limits: 1000 chunks: ", printed)
    outcome = json.loads((tmp_path / "out.json").read_text())
    assert outcome["held"]
    assert outcome["promises"][0]["held"] == 1000


def test_hostile_files_of_the_short_campaign_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    before = set(os.listdir(SHM))
    assert main(["0.3", "--only", "files", "--seed", "1"]) == 0
    assert not {name for name in set(os.listdir(SHM)) - before if "fast" in name} - files_in_use()
    assert "5 promises held" in capsys.readouterr().out


def test_first_broken_promise_ends_the_campaign_with_the_command_that_repeats_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatvla_torture.cli.PARTS", {"broken": BROKEN})
    assert main(["20", "--seed", "9"]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"BROKEN +broken\.odd: 3 of 5 planned cases", printed)
    assert printed.endswith("repeat it: ./chatvla torture 20 --seed 9 --only broken --case 3\n")
    assert main(["2.5", "--seed", "9", "--full", "--json", str(tmp_path / "out.json")]) == 1
    again = "./chatvla torture 2.5 --seed 9 --only broken --case 3 --full"
    assert capsys.readouterr().out.endswith(f"repeat it: {again}\n")
    assert json.loads((tmp_path / "out.json").read_text())["broken"]["repeat"] == again


def failing_part(run: PartRun) -> None:
    run.promise("never", "never comes to it", planned=1)
    raise RuntimeError("no node starts")


def interrupted_part(run: PartRun) -> None:
    run.promise("some", "some are tried", planned=5).hold(2)
    raise KeyboardInterrupt


def test_part_that_cannot_go_on_is_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(name="failing", summary="", target=f"{__name__}:failing_part", share=0.1)
    monkeypatch.setattr("chatvla_torture.cli.PARTS", {"failing": part})
    assert main(["20", "--seed", "9"]) == 1
    printed = capsys.readouterr().out
    assert "broken: failing.never: the part could not go on: RuntimeError: no node starts" in printed
    assert "repeat it: ./chatvla torture 20 --seed 9 --only failing" in printed


def test_interrupted_campaign_reports_what_it_tried(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part(name="cut", summary="", target=f"{__name__}:interrupted_part", share=0.1)
    monkeypatch.setattr("chatvla_torture.cli.PARTS", {"cut": part})
    assert main(["20", "--seed", "9"]) == 130
    printed = capsys.readouterr().out
    assert re.search(r"held +cut\.some: 2 of 5 planned cases", printed)
    assert "stopped before its end" in printed


def test_blocks_in_the_journal_are_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["0.2", "--only", "chunks", "--seed", "1", "--jobs", "1", "--journal", str(tmp_path / "journal.jsonl")]
    figures = {"chunks": 1000, "ticks": 6000}
    lines = [{"seed": seed, "block": block, "figures": figures} for seed, block in ((1, 0), (1, 1), (2, 5))]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr("chatvla_torture.chunks.ProcessPoolExecutor.submit", lambda *_: pytest.fail("tried again"))
    assert main(words) == 0
    assert re.search(r"held +chunks\.limits: 2000 chunks: .*ticks 12000", capsys.readouterr().out)


def test_domain_of_a_bench_is_one_that_nobody_uses() -> None:
    taken = free_domain(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 7400 + 250 * taken + 10))
        assert free_domain(0) != taken


def test_one_case_draws_alone_what_it_drew_in_the_campaign() -> None:
    whole = Campaign(parts=[BROKEN], seed=9, minutes=20.0).run()
    alone = Campaign(parts=[BROKEN], seed=9, minutes=20.0, only_case=3).run()
    assert whole.broken is not None
    assert alone.broken is not None
    assert whole.broken.why == alone.broken.why
    assert case_seed(9, "broken", 3) != case_seed(9, "broken", 4)
    assert case_seed(9, "a", 1) != case_seed(9, "b", 1)


@pytest.mark.parametrize("count", [2, 18, 100])
def test_a_killed_node_alone_is_of_the_bench_that_it_was_of_among_all(count: int) -> None:
    among_all = cases_of(count, None)
    assert sorted(number for numbers in among_all.values() for number in numbers) == list(range(count))
    assert all(among_all[actor] for actor in ("expert", "policy"))
    for what, numbers in among_all.items():
        for number in numbers:
            alone = cases_of(count, number)
            assert [name for name in alone if alone[name]] == [what]
            assert alone[what] == [number]


def test_audit_sees_the_arm_come_to_rest(audited: tuple[AuditedController, Path]) -> None:
    controller, path = audited
    drive(controller, slow_rows(), ticks=80)
    report = read_audit(path)
    assert report.broken == ()
    assert (report.holds, report.chunks) == (1, 1)
    assert report.ticks >= 50


def test_audit_notices_a_command_beyond_the_limits(
    audited: tuple[AuditedController, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, path = audited
    honest = ArmController.step

    def jerked(self, *, now_s, measured, elapsed_s=None):
        command = honest(self, now_s=now_s, measured=measured, elapsed_s=elapsed_s)
        command.positions[2] += 0.3 if now_s > 0.1 else 0.0
        return command

    monkeypatch.setattr(ArmController, "step", jerked)
    drive(controller, slow_rows(), ticks=20)
    assert read_audit(path).broken


def test_audit_notices_motion_after_the_last_chunk(audited: tuple[AuditedController, Path]) -> None:
    controller, path = audited
    drive(controller, slow_rows(), ticks=18)
    # A second chunk that only the player knows of: for the audit the arm goes on after the end of the first.
    controller._player.load(chunk(slow_rows() + 0.01, now_s=0.4))
    for tick in range(18, 90):
        controller.step(now_s=0.02 * tick, measured=controller._player.positions, elapsed_s=0.02)
    assert any("after the end of its last chunk" in line for line in read_audit(path).broken)


@pytest.mark.slow
def test_driver_under_attack_stays_inside_its_limits_and_leaves_no_shared_memory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = set(os.listdir(SHM))
    assert main(["0.1", "--only", "messages", "--case", "0", "--seed", "1"]) == 0
    assert not set(os.listdir(SHM)) - before - files_in_use()
    assert re.search(r"held +messages\.limits: \d+", capsys.readouterr().out)


def test_terminated_campaign_says_what_held_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chatvla_torture.cli", "20", "--only", "chunks", "--jobs", "1", "--seed", "1"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as campaign:
        assert wait_until(lambda: any(tmp_path.iterdir()), 60.0)
        campaign.terminate()
        printed, _ = campaign.communicate(timeout=60.0)
    assert campaign.returncode == 130
    assert "stopped before its end" in printed
    assert not list(tmp_path.iterdir())


def test_signal_while_the_scratch_folder_is_made_ends_the_campaign_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = tempfile.mkdtemp

    def make_and_be_stopped(*arguments: str | None) -> str:
        path = make(*arguments)
        signal.raise_signal(signal.SIGTERM)
        return path

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "mkdtemp", make_and_be_stopped)
    handler = signal.getsignal(signal.SIGTERM)
    assert main(["20", "--only", "chunks", "--jobs", "1", "--seed", "1"]) == 130
    assert "stopped before its end" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is handler


def test_signal_while_a_part_is_imported_keeps_the_exit_code(tmp_path: Path) -> None:
    """Making a dataclass runs a string; `python -m` dies of SIGINT once a KeyboardInterrupt has left one."""
    lines = [
        "import signal, sys",
        "from chatvla_torture.stop_signals import StopSignals",
        "stop = StopSignals()",
        "try:",
        "    with stop.taken(), stop.allowed():",
        "        exec('signal.raise_signal(signal.SIGTERM)')",
        "except KeyboardInterrupt:",
        "    sys.exit(130)",
    ]
    (tmp_path / "stopped_in_exec.py").write_text("\n".join(lines))
    ended = subprocess.run([sys.executable, "-m", "stopped_in_exec"], cwd=tmp_path, check=False)
    assert ended.returncode == 130


@pytest.mark.parametrize("case", ["-1", "100000"])
def test_case_that_is_not_planned_is_refused(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["0.01", "--only", "chunks", "--seed", "1", "--jobs", "1", "--case", case])
    assert end.value.code == 2
    assert "argument --case" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["/proc/none/out.json", "/tmp"])
def test_figures_that_cannot_be_written_are_refused_before_the_campaign(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["0.01", "--json", place])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert not said.out
    assert f"argument --json: {place} cannot be written" in said.err
