# SPDX-License-Identifier: Apache-2.0
"""Open hostile checkpoints, bags, data sets and texts in a process that reports what a loader must not do."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as LateError
from functools import partial
from pathlib import Path

import numpy as np

from chatvla_cli.shared_memory import SharedMemoryFiles
from chatvla_control.subordinate import worker_pool
from chatvla_torture.campaign import PartRun
from chatvla_torture.files.checkpoints import TRIPWIRE
from chatvla_torture.files.guard import Opened, open_guarded
from chatvla_torture.files.texts import hostile_text
from chatvla_torture.processes import wait_until
from chatvla_torture.promise import Promise

__all__ = ["run"]

LONGEST_S = 60.0
MOST_MEMORY = 600e6
_KINDS = {
    "checkpoints": ("chatvla_torture.files.checkpoints", "chatvla_torture.ros.open_checkpoint:open_checkpoint"),
    "bags": ("chatvla_torture.files.bags", "chatvla_torture.ros.open_bag:open_bag"),
    "datasets": ("chatvla_torture.files.datasets", "chatvla_torture.files.datasets:open_dataset"),
}
_REFUSALS = {
    "checkpoints": ("CheckpointError", "GoldenMismatchError", "MismatchError"),
    "bags": ("BagError", "BagUnreadableError", "ReplayError"),
    "datasets": ("DatasetError", "SourceError"),
}
_TEXT_USES = ("instruction", "forced", "question")
_LONGEST_SENTENCE = 900
_END_S = 5.0
"""In which a worker ends that was told to."""


def variants(kind: str) -> list[str]:
    """Return the names of the makers of hostile `kind`."""
    return list(importlib.import_module(_KINDS[kind][0]).HOSTILE)


def make_sound(kind: str, folder: Path) -> None:
    """Make the sound thing that is then spoilt."""
    if kind == "checkpoints":
        from chatvla_policy.systems.untrained import save_untrained

        save_untrained(folder, robot="arx_r5")
        return
    module = importlib.import_module(_KINDS[kind][0])
    (module.make_bag if kind == "bags" else module.make_dataset)(folder)


def open_spoilt(kind: str, name: str, seed: int, sound: Path, place: Path) -> Opened:
    """Copy what is sound, spoil it, open it; return what came of it. An empty `name` opens it unspoilt."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    module, opener = (importlib.import_module(part.partition(":")[0]) for part in _KINDS[kind])
    place.mkdir(parents=True)
    folder = place / "thing"
    shutil.copytree(sound, folder)
    if name:
        module.HOSTILE[name](folder, np.random.default_rng(seed))
    opened = open_guarded(getattr(opener, _KINDS[kind][1].partition(":")[2]), folder)
    if (place / TRIPWIRE).exists() or Path(TRIPWIRE).exists():
        opened = Opened(**{**opened.__dict__, "events": (*opened.events, "the tripwire was touched")})
    shutil.rmtree(place, ignore_errors=True)
    return opened


def open_hostile_text(seed: int, use: str, folder: Path) -> Opened:
    """Give a hostile text to the suite; return what came of it."""
    from chatvla_torture.ros.open_text import known_policy, open_text

    known_policy(folder)
    return open_guarded(partial(open_text, text=hostile_text(np.random.default_rng(seed)), as_what=use), folder)


@contextlib.contextmanager
def _worker() -> Iterator[tuple[ProcessPoolExecutor, Callable[[], object]]]:
    """Give a pool of one process, and what notes its shared memory: a bag is played back by a ROS node in it.

    The process is ended by force, which keeps Fast DDS from deleting its files.
    """
    files = SharedMemoryFiles()
    try:
        with worker_pool(1) as pool:
            pids = [pool.submit(os.getpid).result(60.0)]
            yield pool, lambda: files.observe(pids)
    finally:
        wait_until(lambda: files.remove_leftovers() is None or not files.left, _END_S)


def run(part: PartRun) -> None:
    """Run the part."""
    names = {kind: variants(kind) for kind in _KINDS}
    planned = {kind: part.scaled(len(names[kind]), full=2 * len(names[kind])) for kind in _KINDS}
    texts = part.scaled(60, full=300, least=10)
    code = part.promise(
        "no_foreign_code",
        "opening hostile files and texts runs no foreign code and touches nothing outside their folder",
        planned=sum(planned.values()) + texts,
        unit="openings",
    )
    promises = {
        "checkpoints": part.promise(
            "checkpoints",
            "a hostile checkpoint is refused in one sentence before the policy acts",
            planned=planned["checkpoints"],
            unit="checkpoints",
        ),
        "bags": part.promise(
            "bags",
            "a hostile bag is refused in one sentence, or read with what is bad named",
            planned=planned["bags"],
            unit="bags",
        ),
        "datasets": part.promise(
            "datasets",
            "a hostile data set is refused in one sentence, or its bad samples are skipped and named",
            planned=planned["datasets"],
            unit="data sets",
        ),
    }
    bounded = part.promise(
        "texts",
        "a hostile instruction, forced text or question is refused or answered in bounded time, with finite chunks",
        planned=texts,
        unit="texts",
    )
    with _worker() as (pool, observe):
        for kind in _KINDS:
            (part.scratch / kind).mkdir()
            pool.submit(make_sound, kind, part.scratch / kind / "sound").result(300.0)
            sound = pool.submit(open_spoilt, kind, "", 0, part.scratch / kind / "sound", part.scratch / kind / "check")
            sound.exception(300.0)
            observe()
            promises[kind].require(not sound.result(300.0).error, f"the unspoilt one is refused: {sound.result()}")
        total = sum(planned.values())
        for case in part.cases(total + texts):
            kind, place = _which(case.number, planned)
            if kind is None:
                use = _TEXT_USES[case.number % len(_TEXT_USES)]
                future = pool.submit(open_hostile_text, case.seed, use, part.scratch / "checkpoints" / "sound")
                promise, name = bounded, f"text {case.number} as {use}"
            else:
                name = names[kind][place % len(names[kind])]
                future = pool.submit(
                    open_spoilt, kind, name, case.seed, part.scratch / kind / "sound", part.scratch / kind / f"{place}"
                )
                promise = promises[kind]
            try:
                opened = future.result(LONGEST_S * 3)
            except LateError:
                promise.require(False, f"{name}: nothing after {LONGEST_S * 3:g} s", case)
                return
            observe()
            code.require(not opened.events, f"{name}: {'; '.join(opened.events)}", case)
            code.hold()
            promise.require(_fits(kind, opened), f"{name}: {opened.error}: {opened.sentence:.400}", case)
            promise.require(opened.seconds < LONGEST_S, f"{name}: took {opened.seconds:.0f} s", case)
            if kind is not None:
                promise.require(
                    opened.grown_bytes < MOST_MEMORY, f"{name}: took {opened.grown_bytes / 1e6:.0f} MB more", case
                )
            _count(promise, opened)


def _which(number: int, planned: dict[str, int]) -> tuple[str | None, int]:
    """Return which kind case `number` opens and its number among them; None for a text."""
    for kind, count in planned.items():
        if number < count:
            return kind, number
        number -= count
    return None, number


def _fits(kind: str | None, opened: Opened) -> bool:
    if kind is None:
        return not opened.error
    refused = opened.error in _REFUSALS[kind] if kind == "checkpoints" else opened.error in ("", *_REFUSALS[kind])
    return refused and 0 < len(opened.sentence) <= _LONGEST_SENTENCE


def _count(promise: Promise, opened: Opened) -> None:
    promise.hold()
    word = "refused" if opened.error or opened.sentence.startswith("refused") else "read"
    promise.notes[word] = int(promise.notes.get(word, 0)) + 1
    promise.largest("longest s", round(opened.seconds, 2))
