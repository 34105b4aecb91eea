# SPDX-License-Identifier: Apache-2.0
"""Send metrics to TensorBoard or Weights & Biases too, when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["LOGGERS", "LoggerMissingError", "make_logger"]

LOGGERS = ("none", "tensorboard", "wandb")
Logger = Callable[[int, Mapping[str, float]], None]


class LoggerMissingError(RuntimeError):
    """The package behind a logger is not installed."""


def make_logger(name: str, run: Path, config: Mapping[str, Any]) -> Logger:
    """Return a function that takes (step, figures). Raises LoggerMissingError when its package is absent."""
    if name == "none":
        return lambda step, figures: None
    try:
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(run / "tensorboard"))

            def to_tensorboard(step: int, figures: Mapping[str, float]) -> None:
                for key, value in figures.items():
                    writer.add_scalar(key, value, step)

            return to_tensorboard
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise LoggerMissingError(f"--log {name} needs the package {name}: .venv/bin/pip install {name}") from error
    wandb.init(project="chatvla", name=run.name, dir=str(run), config=dict(config), resume="allow")
    return lambda step, figures: wandb.log(dict(figures), step=step)
