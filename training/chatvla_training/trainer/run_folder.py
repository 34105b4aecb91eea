# SPDX-License-Identifier: Apache-2.0
"""Keep one training run in one folder: what was run, what came out, and where to go on.

  config.json     recipe, seed, commit, hashes of the data, machine
  metrics.jsonl   one line a step; validation lines hold "validation"
  loss.svg        the curves
  skipped.jsonl   samples that could not be read
  state/          training state of the newest steps, each folder whole or absent
  policy/         the checkpoint that the run ends with
One process at a time may write: a lock on the folder refuses a second.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

__all__ = ["RunFolder", "RunFolderError"]


class RunFolderError(RuntimeError):
    """The run folder can't be used; the message says why and what to do."""


class RunFolder:
    """One run's folder. With `writes` false (a second device) it only reads."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """Make the folder and lock it. Raises RunFolderError when another process writes there."""
        self.path, self.writes = path, writes
        self._metrics: TextIO | None = None
        if not writes:
            return
        path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path / ".lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise RunFolderError(f"another process writes to {path}; wait for it or give another --out") from error

    def close(self) -> None:
        """Close the files and free the lock."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if self.writes:
            os.close(self._lock)
            self.writes = False

    @property
    def policy(self) -> Path:
        """Where the run's checkpoint is or will be."""
        return self.path / "policy"

    @property
    def finished(self) -> bool:
        """Whether the run's checkpoint is there."""
        return (self.policy / "manifest.json").is_file()

    def config(self) -> dict[str, Any] | None:
        """Return what config.json says of the run that the folder holds; None where it holds none."""
        path = self.path / "config.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def claim(
        self,
        config: Mapping[str, Any],
        *,
        keys: tuple[str, ...] = ("recipe", "data"),
        said_now: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] | None = None,
    ) -> None:
        """Write config.json after `check`, which takes the rest."""
        self.check(config, keys=keys, said_now=said_now)
        before, plain = self.config(), json.loads(json.dumps(config))
        if before is not None:
            plain["commits"] = [*before.get("commits", [before.get("commit")]), plain.get("commit")]
        if self.writes:
            path = self.path / "config.json"
            aside = path.with_suffix(".tmp")
            aside.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
            aside.replace(path)

    def check(
        self,
        config: Mapping[str, Any],
        *,
        keys: tuple[str, ...],
        said_now: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] | None = None,
    ) -> None:
        """Raise RunFolderError, naming the entries that differ, unless config.json says in `keys` what `config` says.

        `said_now` turns what an older version, which has begun it, said under a key into what this one would say.
        """
        before, plain = self.config(), json.loads(json.dumps(config))
        for key in keys if before is not None else ():
            old = before.get(key, {})
            changed = _differences(said_now[key](old) if said_now and key in said_now else old, plain.get(key, {}))
            if changed:
                raise RunFolderError(
                    f"{self.path} holds a run with another {key}: {'; '.join(changed)}. "
                    "Give the same values to go on, or another --out"
                )

    def states(self) -> dict[int, Path]:
        """Return the whole training states by step, ascending."""
        found = sorted((self.path / "state").glob("step-*"))
        return {int(path.name.removeprefix("step-")): path for path in found}

    @contextmanager
    def new_state(self, step: int) -> Iterator[Path]:
        """Give a folder to write the state of `step` into; it counts only once the block has ended well."""
        final = self.path / "state" / f"step-{step:08d}"
        aside = self.path / "state" / f".step-{step:08d}"
        if self.writes:
            # Also those of other steps, which a process that was killed left half-written.
            for left in aside.parent.glob(".step-*"):
                shutil.rmtree(left, ignore_errors=True)
            aside.mkdir(parents=True)
        yield aside
        if self.writes:
            for file in aside.iterdir():
                _sync(file)
            if final.exists():
                shutil.rmtree(final)
            aside.replace(final)
            _sync(final.parent)

    def drop_states(self, *, keep: int) -> None:
        """Remove all but the newest `keep` states."""
        for path in list(self.states().values())[:-keep]:
            shutil.rmtree(path)

    def rewind(self, step: int) -> None:
        """Drop metrics after `step`: they are computed again, to the same values."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        kept = [line for line in read_lines(path) if line["step"] <= step]
        aside = path.with_suffix(".tmp")
        aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        aside.replace(path)

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line of metrics."""
        if not self.writes:
            return
        if self._metrics is None:
            self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
        self._metrics.write(json.dumps(line) + "\n")
        self._metrics.flush()

    def skip(self, step: int, sample: str, reason: str) -> None:
        """Note that a sample could not be read for `step`, 0 before the first."""
        if self.writes:
            with (self.path / "skipped.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": step, "sample": sample, "reason": reason}) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return all lines of metrics so far."""
        path = self.path / "metrics.jsonl"
        return list(read_lines(path)) if path.exists() else []


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file; a line cut off by a kill ends it."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _differences(before: Any, now: Any) -> list[str]:
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [f"{before!r} before, {now!r} now"]
    names = sorted(set(before) | set(now))
    return [
        f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in names if before.get(name) != now.get(name)
    ]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
