# SPDX-License-Identifier: Apache-2.0
"""Kill training runs at random points and let them go on; two writers on one folder; corrupt episodes. No ROS."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from chatvla_torture.campaign import PartRun
from chatvla_torture.promise import Case

__all__ = ["run"]

_AT_TWENTY = 6
_FULL = 20
_KILLS_A_RUN = 5
_FIGURES = ("step", "loss", "language", "action", "gradient", "lr")


def run(part: PartRun) -> None:
    """Run the part."""
    kills = part.scaled(_AT_TWENTY, full=_FULL, least=1)
    resumed = part.promise(
        "resume",
        "a run that was killed at random points ends with the losses and weights of one that was not, bit for bit",
        planned=kills,
        unit="kills",
    )
    writers = part.promise("writers", "a second writer on a run folder is refused", planned=1)
    corrupt = part.promise(
        "corrupt", "a corrupt episode is skipped, counted and named, and training goes on", planned=1
    )
    makers = multiprocessing.get_context("forkserver")
    makers.set_forkserver_preload(["chatvla_training.training_run", "chatvla_torture.files.datasets"])
    folder = part.scratch
    _finished(makers, make_data, folder)
    whole = folder / "whole"
    _finished(makers, train, folder / "data", whole)
    done = 0
    while done < kills and part.in_time():
        case = part.case(part.only_case if part.only_case is not None else done // _KILLS_A_RUN)
        part.say(f"{done} of {kills} kills")
        done += _killed_run(makers, folder, whole, case, min(_KILLS_A_RUN, kills - done), resumed)
        if part.only_case is not None:
            break
    _two_writers(makers, folder, writers)
    _finished(makers, spoil_data, folder)
    _finished(makers, train, folder / "spoilt", folder / "skipping")
    path = folder / "skipping" / "skipped.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    corrupt.require(
        lines and all("episode-" in line["sample"] and line["reason"] for line in lines), "nothing is named"
    )
    finite = all(np.isfinite(line["loss"]) for line in _losses(folder / "skipping"))
    corrupt.require(finite, "a loss is not finite")
    corrupt.notes["skipped"] = len(lines)
    corrupt.hold()


def make_data(folder: Path) -> None:
    """Write the data set that the runs train on."""
    from chatvla_torture.files.datasets import make_dataset

    make_dataset(folder / "data")


def spoil_data(folder: Path) -> None:
    """Copy the data set with a NaN and a broken picture."""
    import shutil

    from chatvla_torture.files.datasets import HOSTILE

    shutil.copytree(folder / "data", folder / "spoilt", ignore=shutil.ignore_patterns(".frames"))
    for name in ("action infinite", "picture empty"):
        HOSTILE[name](folder / "spoilt", np.random.default_rng(1))


def train(data: Path, run: Path) -> None:
    """Train the smallest model, or go on where a run stopped."""
    import torch

    from chatvla_training.recipe import Recipe
    from chatvla_training.training_run import train_recipe

    torch.set_num_threads(1)
    values: dict[str, Any] = {
        "name": "torture",
        "summary": "",
        "stage": "stage1",
        "size": "micro",
        "data": str(data),
        "image_text": "",
        "ratio": (0, 1),
        "moe": "dynamic",
        "experts": 2,
        "top_k": 1,
        "horizon": 8,
        "steps": 16,
        "batch": 4,
        "micro_batch": 4,
        "lr": 1e-3,
        "lr_end": 1e-4,
        "warmup": 2,
        "ema": 0.9,
        "precision": "fp32",
        "workers": 0,
        "validate_every": 0,
        "checkpoint_every": 2,
        "storage": "as_is",
    }
    train_recipe(Recipe(**values), run)


def hold_folder(run: Path) -> None:
    """Be a writer that does not end."""
    from chatvla_training.trainer.run_folder import RunFolder

    _ = RunFolder(run)
    (run / "held").touch()
    time.sleep(600.0)


def _start(makers: Any, target: Any, *arguments: Any) -> BaseProcess:
    process = makers.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def _finished(makers: Any, target: Any, *arguments: Any) -> None:
    process = _start(makers, target, *arguments)
    process.join(600.0)
    if process.exitcode != 0:
        raise RuntimeError(f"{target.__name__} ended with {process.exitcode}")


def _killed_run(makers: Any, folder: Path, whole: Path, case: Case, kills: int, resumed: Any) -> int:
    """Kill one run up to `kills` times, let it end, compare; return how often it was killed."""
    random = case.random()
    run, killed = folder / f"killed-{case.number}", 0
    for _ in range(kills):
        wanted = len(_losses(run)) + int(random.integers(0, 3))
        process = _start(makers, train, folder / "data", run)
        end_s = time.monotonic() + 300.0
        while process.is_alive() and time.monotonic() < end_s and len(_losses(run)) <= wanted:
            time.sleep(0.005)
        time.sleep(float(random.uniform(0.0, 0.3)))
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            killed += 1
        process.join()
    _finished(makers, train, folder / "data", run)
    resumed.require(_losses(run) == _losses(whole), f"other losses after {killed} kills", case)
    for name in ("model.safetensors", "statistics.json", "config.json"):
        same = (run / "policy" / name).read_bytes() == (whole / "policy" / name).read_bytes()
        resumed.require(same, f"another {name} after {killed} kills", case)
    resumed.hold(killed)
    return max(killed, 1)


def _losses(run: Path) -> list[dict[str, float]]:
    """Return the figures of each step; a line that was cut off is left out."""
    found: list[dict[str, float]] = []
    path = run / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            data = json.loads(line)
            if "loss" in data:
                found.append({key: data[key] for key in _FIGURES if key in data})
    return found


def _two_writers(makers: Any, folder: Path, writers: Any) -> None:
    from chatvla_training.trainer.run_folder import RunFolder, RunFolderError

    run = folder / "shared"
    first = _start(makers, hold_folder, run)
    end_s = time.monotonic() + 120.0
    while not (run / "held").exists() and time.monotonic() < end_s:
        time.sleep(0.05)
    try:
        RunFolder(run).close()
        refusal = ""
    except RunFolderError as error:
        refusal = str(error)
    writers.require("another process writes" in refusal, f"a second writer heard {refusal!r}")
    first.kill()
    first.join()
    # The lock of a killed writer is free again.
    RunFolder(run).close()
    writers.hold()
