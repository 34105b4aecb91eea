# SPDX-License-Identifier: Apache-2.0
"""Load a policy by folder or name. The checkpoint says which system it is; a new system is one line in SYSTEMS."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from chatvla_control.contracts import Policy
from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.checkpoint.folder import read_config

__all__ = ["SHIPPED", "SYSTEMS", "checkpoint_folder", "load_policy", "shipped_names", "system_of"]

SYSTEMS: Mapping[str, str] = {
    "chatvla2": "chatvla_policy.systems.chatvla2:ChatVLA2Policy",
    "chatvla1": "chatvla_policy.systems.chatvla1:ChatVLA1Policy",
    "vlm2vla": "chatvla_policy.systems.vlm2vla:Vlm2VlaPolicy",
    "dense_film": "chatvla_policy.systems.dense_film:DenseFilmPolicy",
    "diffusion_policy": "chatvla_policy.systems.diffusion_policy:DiffusionPolicy",
}
"""Policy classes by the name that a checkpoint's config.json gives; imported when needed."""
SHIPPED = Path(__file__).resolve().parent.parent / "checkpoints"
"""Where checkpoints that come with the package lie, one folder each."""


def shipped_names() -> tuple[str, ...]:
    """Return the names of the checkpoints that come with the package, sorted."""
    if not SHIPPED.is_dir():
        return ()
    return tuple(sorted(path.name for path in SHIPPED.iterdir() if (path / "manifest.json").is_file()))


def checkpoint_folder(folder_or_name: str | Path) -> Path:
    """Return the folder of a checkpoint. Raises CheckpointError, listing the names that exist.

    A shipped name stands before a folder of that name that is no checkpoint, such as one of evaluations.
    """
    folder = Path(folder_or_name)
    names = shipped_names()
    if str(folder_or_name) in names and not (folder / "manifest.json").is_file():
        return SHIPPED / str(folder_or_name)
    if folder.is_dir():
        return folder
    known = ", ".join(names) or "none yet"
    raise CheckpointError(
        f"{str(folder_or_name)!r} is no folder, nor a checkpoint that comes with the package: {known}"
    )


def system_of(folder_or_name: str | Path) -> str:
    """Return the system of a checkpoint without loading it, a key of SYSTEMS.

    Raises CheckpointError as `load_policy` does.
    """
    folder = checkpoint_folder(folder_or_name)
    system = read_config(folder)["system"]
    if system not in SYSTEMS:
        raise CheckpointError(f"{folder} is of system {system!r}; this version knows: {', '.join(SYSTEMS)}")
    return system


def policy_class(system: str) -> Any:
    """Return the policy class of a system, a key of SYSTEMS. Raises KeyError."""
    module, _, name = SYSTEMS[system].partition(":")
    return getattr(import_module(module), name)


def load_policy(
    folder_or_name: str | Path, *, device: str = "cpu", seed: int = 0, robot: str | None = None, **options: Any
) -> Policy:
    """Return the policy of a checkpoint folder or of a shipped checkpoint's name.

    `robot` chooses among the robots of the checkpoint; `options` go to the system's own `load`.
    Raises CheckpointError naming the first mismatch, or listing what exists.
    """
    folder = checkpoint_folder(folder_or_name)
    return policy_class(system_of(folder)).load(folder, device=device, seed=seed, robot=robot, **options)
