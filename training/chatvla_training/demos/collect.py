# SPDX-License-Identifier: Apache-2.0
"""Record many episodes on all cores, and go on where a killed run stopped.

Episodes lie one file each in `.NAME.parts` beside the data set until all are there; then the data set appears at once.
Which trials are recorded depends on the seed alone, not on the number of processes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chatvla_control.subordinate import worker_pool
from chatvla_sim.benches import make_bench
from chatvla_sim.expert import make_expert
from chatvla_training.data.assemble import assemble
from chatvla_training.data.record import save_record
from chatvla_training.demos.episode import DemoSettings, EpisodeFailedError, record_episode
from chatvla_training.progress import progress
from chatvla_training.provenance import commit

__all__ = ["ATTEMPTS", "CollectError", "collect"]

ATTEMPTS = 5
"""Trials tried per episode before the collection gives up."""
SEED_STRIDE = 1_000_000


class CollectError(RuntimeError):
    """The collection can't go on; the message says why and what to do."""


@dataclass(frozen=True)
class _Job:
    episode: int
    seed: int
    path: Path
    settings: DemoSettings


def collect(out: Path, *, episodes: int, seed: int, jobs: int, settings: DemoSettings) -> dict[str, int]:
    """Write a data set of `episodes` episodes to `out` and return counts: recorded, kept from before, failed trials.

    Raises CollectError when a trial fails ATTEMPTS times, or `out` or its parts hold something else, and BenchError for
    a camera that the bench does not have.
    """
    parts = out.with_name(f".{out.name}.parts")
    wanted = {"episodes": episodes, "seed": seed, "settings": asdict(settings)}
    if out.exists():
        raise CollectError(f"{out} exists already; choose another folder or remove it")
    bench = make_bench(settings.task)
    bench.use_views(settings.views)
    spec = bench.spec
    bench.close()
    _claim(parts, wanted)
    paths = [parts / f"episode-{index:06d}.npz" for index in range(episodes)]
    missing = [
        _Job(index, seed * SEED_STRIDE + index, path, settings) for index, path in enumerate(paths) if not path.exists()
    ]
    failures: list[str] = []
    bar = progress(_run(missing, jobs), "record", unit="episode", total=episodes, start=episodes - len(missing))
    for failed in bar:
        failures += failed
        bar.set_postfix(failed=len(failures))
    provenance: dict[str, Any] = {
        "task": settings.task,
        "demonstrator": "expert (privileged, scripted)",
        "simulation": True,
        "commit": commit(),
        **wanted,
        "failed_trials": failures,
    }
    assemble(paths, out, robot=spec.name, joint_names=spec.joint_names, provenance=provenance)
    shutil.rmtree(parts)
    return {"recorded": len(missing), "kept": episodes - len(missing), "failed": len(failures)}


def _claim(parts: Path, wanted: dict[str, Any]) -> None:
    """Make the folder of parts, or check that it belongs to the same collection."""
    parts.mkdir(parents=True, exist_ok=True)
    note = parts / "collection.json"
    if note.exists():
        before = json.loads(note.read_text(encoding="utf-8"))
        before["episodes"] = wanted["episodes"]
        if before != json.loads(json.dumps(wanted)):
            raise CollectError(f"{parts} holds episodes made with other settings; remove it or use those settings")
    note.write_text(json.dumps(wanted), encoding="utf-8")


def _run(jobs: list[_Job], processes: int) -> Iterator[list[str]]:
    """Record all jobs; yield the failures of each as it ends."""
    if processes <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield _record(job)
        return
    with worker_pool(min(processes, len(jobs)), prepare=_start_worker) as pool:
        waiting = [pool.submit(_record, job) for job in jobs]
        for future in as_completed(waiting):
            yield future.result()


def _start_worker() -> None:
    """Leave the other cores to the other workers."""
    os.environ["OMP_NUM_THREADS"] = "1"


def _record(job: _Job) -> list[str]:
    """Record one episode, with further trials where one fails; return the failures."""
    failures: list[str] = []
    for attempt in range(ATTEMPTS):
        # A bench of its own: what one episode leaves behind must not show in the next.
        bench = make_bench(job.settings.task)
        try:
            expert = make_expert(job.settings.task, bench.spec, bench.truth)
            record = record_episode(bench, expert, job.settings, job.seed + attempt * SEED_STRIDE // 10)
        except EpisodeFailedError as failure:
            failures.append(str(failure))
            continue
        finally:
            bench.close()
        save_record(record, job.path)
        return failures
    raise CollectError(f"episode {job.episode} failed {ATTEMPTS} times: " + "; ".join(failures))
