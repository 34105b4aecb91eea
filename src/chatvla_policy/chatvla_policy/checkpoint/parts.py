# SPDX-License-Identifier: Apache-2.0
"""Save and open the parts that checkpoints of every system share; what else lies in the folder is the system's own.

Shared: manifest.json, config.json with `system`, robot_spec.json, statistics.json, provenance.json (see folder.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatvla_policy.checkpoint.atomic import replaced_folder
from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.checkpoint.files import MANIFEST, Manifest, read_manifest, verified_file, write_manifest
from chatvla_policy.checkpoint.setup import RobotSetup, setups_from_plain, setups_to_plain
from chatvla_policy.strict_json import StrictJsonError, dump_json, read_json

__all__ = ["Parts", "open_parts", "save_parts"]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """An opened folder: what is shared, and the way to its other files."""

    folder: Path
    manifest: Manifest
    sha256: str
    config: Any
    """config.json as plain data."""
    robots: tuple[RobotSetup, ...]
    provenance: Mapping[str, Any]

    def file(self, name: str) -> Path:
        """Return the path of a listed file, checked against its hash. Raises CheckpointError."""
        return verified_file(self.folder, self.manifest, name)

    def json(self, name: str) -> Any:
        """Return the parsed content of a listed JSON file. Raises CheckpointError."""
        try:
            return read_json(self.file(name))
        except StrictJsonError as error:
            raise CheckpointError(f"{self.folder}: {error}") from error

    def robot(self, name: str | None = None) -> RobotSetup:
        """Return the robot `name`, or the first one. Raises CheckpointError, listing those that exist."""
        for setup in self.robots:
            if name in (None, setup.spec.name):
                return setup
        known = ", ".join(setup.spec.name for setup in self.robots)
        raise CheckpointError(f"the checkpoint does not drive robot {name!r}; it drives: {known}")


def save_parts(
    folder: Path | str,
    *,
    config: Any,
    robots: tuple[RobotSetup, ...],
    provenance: Mapping[str, Any],
    write: Callable[[Path], None],
) -> str:
    """Write `folder` in one step, the system's own files by `write(aside)`; return the checkpoint's hash.

    Raises CheckpointError without a robot, and what `write` raises; nothing is replaced then.
    """
    if not robots:
        raise CheckpointError("the checkpoint drives no robot; give at least one RobotSetup")
    specs, statistics = setups_to_plain(robots)
    documents = {
        "config.json": config,
        "robot_spec.json": specs,
        "statistics.json": statistics,
        "provenance.json": dict(provenance),
    }
    with replaced_folder(Path(folder), marker=MANIFEST) as aside:
        for name, document in documents.items():
            (aside / name).write_text(dump_json(document), encoding="utf-8")
        write(aside)
        return write_manifest(aside)


def open_parts(folder: Path | str) -> Parts:
    """Return the shared parts of a checkpoint. Raises CheckpointError naming the first mismatch."""
    folder = Path(folder)
    manifest, sha256 = read_manifest(folder)
    parts = Parts(folder=folder, manifest=manifest, sha256=sha256, config=None, robots=(), provenance={})
    return Parts(
        folder=folder,
        manifest=manifest,
        sha256=sha256,
        config=parts.json("config.json"),
        robots=setups_from_plain(parts.json("robot_spec.json"), parts.json("statistics.json")),
        provenance=parts.json("provenance.json"),
    )
