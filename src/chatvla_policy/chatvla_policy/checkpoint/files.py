# SPDX-License-Identifier: Apache-2.0
"""List a checkpoint's files with their hashes, and open nothing that is not listed, plain and unchanged.

`manifest.json` holds the format number and name, size and SHA-256 of every other file. Its own SHA-256 is the
checkpoint's hash, which every chunk carries.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.strict_json import StrictJsonError, dump_json, from_plain, read_json

__all__ = ["FORMAT", "MANIFEST", "FileEntry", "Manifest", "read_manifest", "verified_file", "write_manifest"]

FORMAT = 1
MANIFEST = "manifest.json"
_PLAIN_NAME = re.compile(r"(?:(?:processor|base|adapter)/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of the folder."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that the folder holds."""

    format: int
    files: tuple[FileEntry, ...]

    def file(self, name: str) -> FileEntry:
        """Return the entry of file `name`. Raises CheckpointError when it is not listed."""
        for entry in self.files:
            if entry.name == name:
                return entry
        raise CheckpointError(f"the checkpoint lacks {name}; {MANIFEST} does not list it")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> str:
    """Write the manifest over all files in `folder`; return its SHA-256."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = tuple(
        FileEntry(name=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=file_sha256(path))
        for path in paths
    )
    (folder / MANIFEST).write_text(dump_json(Manifest(format=FORMAT, files=entries)), encoding="utf-8")
    return file_sha256(folder / MANIFEST)


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Return the manifest and the checkpoint's hash. Raises CheckpointError when the folder is no checkpoint."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; give the folder of a checkpoint")
    path = folder / MANIFEST
    if not path.is_file() or path.is_symlink():
        raise CheckpointError(_not_ours(folder))
    try:
        data = read_json(path)
        number = data.get("format") if isinstance(data, dict) else None
        if number != FORMAT:
            raise CheckpointError(f"{path} has format {number!r}, this version reads {FORMAT}; save it anew")
        manifest = from_plain(Manifest, data, where=MANIFEST)
    except StrictJsonError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    for entry in manifest.files:
        if not _PLAIN_NAME.fullmatch(entry.name) or ".." in entry.name:
            raise CheckpointError(f"{MANIFEST} lists {entry.name!r}, which is no plain file name in the folder")
        if entry.size < 0:
            raise CheckpointError(
                f"{MANIFEST} says that {entry.name} has {entry.size} bytes; copy the checkpoint again"
            )
    return manifest, file_sha256(path)


def verified_file(folder: Path, manifest: Manifest, name: str) -> Path:
    """Return the path of a listed file after checking that it is plain and unchanged. Raises CheckpointError."""
    entry = manifest.file(name)
    path = folder / entry.name
    if path.is_symlink() or path.parent.is_symlink():
        raise CheckpointError(f"{entry.name} is a link; a checkpoint holds plain files only")
    if not path.is_file():
        raise CheckpointError(f"{entry.name} is missing from {folder}; copy the checkpoint again")
    size = path.stat().st_size
    if size != entry.size:
        raise CheckpointError(f"{entry.name} has {size} bytes, {MANIFEST} says {entry.size}; copy the checkpoint again")
    if file_sha256(path) != entry.sha256:
        raise CheckpointError(f"{entry.name} is not the file that was saved (SHA-256 differs); copy it again")
    return path


def _not_ours(folder: Path) -> str:
    """Return why a folder without a manifest is refused."""
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return (
            f"{folder} looks like a transformers checkpoint (config.json, no {MANIFEST}), not like one of ChatVLA; "
            "make one from it with chatvla_policy.model.upcycle"
        )
    return f"{folder} has no {MANIFEST}; give the folder of a ChatVLA checkpoint"
