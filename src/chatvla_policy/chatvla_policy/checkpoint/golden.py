# SPDX-License-Identifier: Apache-2.0
"""Keep one input and the chunk that it must give, so that activation can tell a wrong library, type or device.

The input is complete (images, state, text, noise), the expected chunk is normalised; the largest difference allowed
is stored with them, and the fingerprint of the statistics, which a normalised chunk says nothing about.
Shapes: H, W pixels; N views; Z state dims; T chunk steps; A action dims.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from chatvla_policy.checkpoint.errors import CheckpointError, GoldenMismatchError

__all__ = ["GOLDEN_FILE", "Golden", "check_golden", "read_golden", "write_golden"]

GOLDEN_FILE = "golden.safetensors"


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One input and what must come out."""

    robot: str
    images: tuple[NDArray[np.uint8], ...]
    state: NDArray[np.float64]
    """Joint positions, shape (Z,), rad and m."""
    instruction: str
    reasoning: str
    """Text the model is forced to, so that one differing token cannot hide the rest."""
    noise: NDArray[np.float32]
    """What denoising starts from, shape (T, A)."""
    chunk: NDArray[np.float32]
    """Expected normalised chunk, shape (T, A)."""
    tolerance: float
    """Largest absolute difference allowed, normalised units."""
    statistics_sha256: str = ""
    """Fingerprint of the robot's statistics; empty in a golden input that was not saved yet."""

    def input_sha256(self) -> str:
        """Return the fingerprint of the input."""
        digest = hashlib.sha256(json.dumps([self.robot, self.instruction, self.reasoning]).encode())
        for array in (*self.images, self.state, self.noise):
            digest.update(repr((array.shape, str(array.dtype))).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def check_golden(golden: Golden, chunk: NDArray[np.float32]) -> float:
    """Return the largest difference to the expected chunk. Raises GoldenMismatchError beyond the tolerance."""
    if chunk.shape != golden.chunk.shape:
        raise GoldenMismatchError(f"golden chunk has shape {golden.chunk.shape}, the model gives {chunk.shape}")
    worst = float(np.abs(chunk - golden.chunk).max())
    if not worst <= golden.tolerance:
        raise GoldenMismatchError(
            f"the model's chunk differs from the stored one by {worst:.3g}, at most {golden.tolerance:.3g} is allowed; "
            "check the versions of torch and transformers, and the number type"
        )
    return worst


def write_golden(folder: Path, golden: Golden) -> None:
    """Write GOLDEN_FILE into `folder`."""
    arrays = {f"image_{index}": image for index, image in enumerate(golden.images)}
    arrays |= {"state": golden.state, "noise": golden.noise, "chunk": golden.chunk}
    words = {
        "robot": golden.robot,
        "instruction": golden.instruction,
        "reasoning": golden.reasoning,
        "tolerance": repr(golden.tolerance),
        "input_sha256": golden.input_sha256(),
        "statistics_sha256": golden.statistics_sha256,
    }
    whole = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, words)
    # The library's own save_file keeps others of the machine from reading it.
    (folder / GOLDEN_FILE).write_bytes(whole)


def read_golden(path: Path) -> Golden:
    """Return what `write_golden` wrote. Raises CheckpointError when it does not fit."""
    try:
        with safe_open(path, framework="numpy") as file:
            words: Mapping[str, str] = file.metadata() or {}
            names = sorted(file.keys())
            arrays = {name: file.get_tensor(name) for name in names}
        images = tuple(arrays[f"image_{index}"] for index in range(sum(name.startswith("image_") for name in names)))
        golden = Golden(
            robot=words["robot"],
            images=images,
            state=arrays["state"],
            instruction=words["instruction"],
            reasoning=words["reasoning"],
            noise=arrays["noise"],
            chunk=arrays["chunk"],
            tolerance=float(words["tolerance"]),
            statistics_sha256=words.get("statistics_sha256", ""),
        )
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error
    if golden.input_sha256() != words.get("input_sha256"):
        raise CheckpointError(f"{path.name} holds another input than was saved (SHA-256 differs)")
    return golden
