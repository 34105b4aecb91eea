# SPDX-License-Identifier: Apache-2.0
"""Say which action expert to build: its size, its conditioning, its objective and the robots it drives.

Sizes S to H are ScaleDP's (ChatVLA-2 uses H, its "1B"); `tiny` is for tests and the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ACTION_SIZES", "ActionConfig", "Conditioning", "Embodiment", "Objective", "action_size"]

Conditioning = Literal["latter_half", "all", "former_half", "film", "concat", "cross_attention", "none"]
Objective = Literal["diffusion", "flow"]

_LARGEST = 2**16
_WIDTHS = ("state_width", "action_width", "horizon")


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """One robot as the action expert sees it: widths of its state and action vectors and its chunk length."""

    name: str
    """RobotSpec name; keys the input and output heads."""
    state_width: int
    action_width: int
    horizon: int
    """Steps T of one chunk."""


@dataclass(frozen=True, kw_only=True)
class ActionConfig:
    """One action expert: DiT size, how reasoning enters, and how actions are denoised."""

    depth: int
    width: int
    heads: int
    mlp_ratio: int = 4
    conditioning: Conditioning = "latter_half"
    """Where the reasoning embedding r enters; `latter_half` is the paper's method (Table 6)."""
    objective: Objective = "diffusion"
    queries: int = 8
    """Learned action tokens appended after the reasoning."""
    train_steps: int = 100
    """Noise levels of the diffusion."""
    sample_steps: int = 10
    """Denoising steps at inference unless asked otherwise."""
    clip_sample: bool = True
    """Clip the estimated clean chunk to [-1, 1] in every denoising step (normalised units)."""
    embodiments: tuple[Embodiment, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that cannot be built."""
        sizes = {"depth": self.depth, "width": self.width, "heads": self.heads, "mlp_ratio": self.mlp_ratio}
        sizes |= {"queries": self.queries, "train_steps": self.train_steps}
        for robot in self.embodiments:
            sizes |= {f"{name} of {robot.name}": getattr(robot, name) for name in _WIDTHS}
        for name, size in sizes.items():
            if not 1 <= size <= _LARGEST:
                raise ValueError(f"the action expert's {name} is {size}, must lie in 1..{_LARGEST}")
        if self.width % self.heads:
            raise ValueError(f"action width {self.width} is not a multiple of {self.heads} heads")
        if not 1 <= self.sample_steps <= self.train_steps:
            raise ValueError(f"sample_steps is {self.sample_steps}, must lie in 1..{self.train_steps} (train_steps)")
        names = [embodiment.name for embodiment in self.embodiments]
        if len(set(names)) != len(names):
            raise ValueError(f"embodiments {names} repeat a name; each robot has one pair of heads")

    def embodiment(self, name: str) -> Embodiment:
        """Return the embodiment of robot `name`. Raises ValueError, listing those that exist."""
        for embodiment in self.embodiments:
            if embodiment.name == name:
                return embodiment
        known = ", ".join(item.name for item in self.embodiments) or "none"
        raise ValueError(f"the action expert has no heads for robot {name!r}; it has: {known}")


ACTION_SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (4, 128, 4),
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
    "H": (32, 1280, 16),
}
"""Depth, width and heads by ScaleDP's size names."""


def action_size(name: str, **fields: object) -> ActionConfig:
    """Return the config of size `name` with further `fields`. Raises ValueError, listing the sizes."""
    if name not in ACTION_SIZES:
        raise ValueError(f"no action expert size {name!r}; there are: {', '.join(ACTION_SIZES)}")
    depth, width, heads = ACTION_SIZES[name]
    return ActionConfig(**{"depth": depth, "width": width, "heads": heads, **fields})  # type: ignore[arg-type]
