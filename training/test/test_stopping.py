# SPDX-License-Identifier: Apache-2.0
"""What a training does when it is asked to stop: whole processes, real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = {
    "init": "",
    "size": "micro",
    "moe": "dynamic",
    "experts": "2",
    "top_k": "1",
    "horizon": "8",
    "batch": "8",
    "micro_batch": "4",
    "warmup": "2",
    "steps": "100000",
    "checkpoint_every": "100000",
    "precision": "fp32",
    "workers": "1",
    "shard": "false",
}


def steps_done(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    if not metrics.exists():
        return 0
    *whole, _ = metrics.read_text().split("\n")
    return sum("loss" in json.loads(line) for line in whole)


def eventually(condition: Callable[[], bool], timeout_s: float) -> bool:
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def train(run: Path, data: Path, image_text: Path, *, devices: int) -> subprocess.Popen[str]:
    keys = SMALL | {"data": str(data), "image_text": f"qa={image_text}", "out": str(run), "devices": str(devices)}
    words = [word for key, value in keys.items() for word in (f"--{key}", value)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # How long torch's launcher waits before it kills [s], unless the training says otherwise.
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "0",
    }
    command = [sys.executable, "-m", "chatvla_training.train", "stage1", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True, process_group=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "devices", "by_name"),
    [(signal.SIGINT, 1, False), (signal.SIGTERM, 1, False), (signal.SIGTERM, 1, True), (signal.SIGINT, 2, False)],
    ids=["Ctrl-C", "kill", "pkill", "two"],
)
def test_stopped_run_keeps_its_last_step(
    number: signal.Signals, devices: int, by_name: bool, tmp_path: Path, arm_data: Path, llava_file: Path
) -> None:
    run = tmp_path / "run"
    with train(run, arm_data, llava_file, devices=devices) as process:
        try:
            assert eventually(lambda: steps_done(run) >= 2 or process.poll() is not None, 120.0)
            assert process.poll() is None, process.communicate()[1]
            if by_name:
                # Those that make batches have the same name.
                for worker in children(process.pid):
                    os.kill(worker, number)
                os.kill(process.pid, number)
            else:
                # As a terminal does: to the whole group.
                os.killpg(process.pid, number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == (128 + number if devices == 1 else 1), said
    done = steps_done(run)
    assert f"stopped after step {done}, its state is kept; the same command goes on from there" in said
    assert [path.name for path in (run / "state").iterdir()] == [f"step-{done:08d}"]
