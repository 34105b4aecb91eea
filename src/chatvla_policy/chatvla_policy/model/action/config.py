# SPDX-License-Identifier: Apache-2.0
"""Say which action expert to build: its size, its conditioning, its objective and the robots it drives.

Sizes S to H are ScaleDP's (ChatVLA-2 uses H, its "1B"); `tiny` is H's small likeness, for tests and comparisons.
`compact` has tiny's size and is made to learn from hundreds of demonstrations on a CPU, where tiny needs many more:
it guesses the clean chunk, ten steps a token, from conditions too narrow to tell one demonstration from another, looks
at the image tokens itself, says where the arm next grasps or lets go before it says the way there, and need not send
the joints' own places through its layers. `compact_numbers` looks at what the text says of places, and at little else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from chatvla_policy.processing.stated_numbers import MOST_NUMBERS
from chatvla_policy.strict_json import added

__all__ = ["ACTION_SIZES", "ActionConfig", "Conditioning", "Embodiment", "Objective", "action_size"]

Conditioning = Literal["latter_half", "all", "former_half", "film", "concat", "cross_attention", "none"]
Objective = Literal["diffusion", "flow", "flow_clean"]

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
    patch: int = 1
    """Steps of the chunk that make one token of the expert."""
    token_width: int = 0
    """Width that every action token, and the reasoning, is squeezed to; 0: the expert's own."""
    reasoning_tail: int = 0
    """Tokens at the end of the reasoning whose states make r; 0: the mean over all of them."""
    numbers: int = added(0)
    """Last numbers of the reasoning that r reads as values, beside the states; 0: none."""
    sight: int = 0
    """Most image tokens that the expert looks at itself; 0: it sees through the action tokens alone."""
    state_skip: bool = False
    """A linear way from the state to the chunk, past the trunk: where the arm is reaches the targets exactly."""
    keyframe: float = 0.0
    """Weight of guessing the next keyframe, the joints at the next change of a gripper or at the task's end, beside the
    chunk, which is then made with that guess in hand; 0: none is guessed."""
    dropout: float = 0.0
    """Share of the language model's states, and of whole image tokens, that training hides from the expert."""
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
        sizes |= {"queries": self.queries, "train_steps": self.train_steps, "patch": self.patch}
        for robot in self.embodiments:
            sizes |= {f"{name} of {robot.name}": getattr(robot, name) for name in _WIDTHS}
        for name, size in sizes.items():
            if not 1 <= size <= _LARGEST:
                raise ValueError(f"the action expert's {name} is {size}, must lie in 1..{_LARGEST}")
        for name in ("token_width", "reasoning_tail", "sight"):
            if not 0 <= getattr(self, name) <= _LARGEST:
                raise ValueError(f"the action expert's {name} is {getattr(self, name)}, must lie in 0..{_LARGEST}")
        if not 0 <= self.numbers <= MOST_NUMBERS:
            raise ValueError(f"the action expert reads {self.numbers} numbers, must lie in 0..{MOST_NUMBERS}")
        if not 0.0 <= self.keyframe <= _LARGEST:
            raise ValueError(f"the action expert's keyframe weight is {self.keyframe}, must lie in 0..{_LARGEST}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"the action expert's dropout is {self.dropout}, must lie in 0 to below 1")
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


_SCALE_DP: dict[str, tuple[int, int, int]] = {
    "tiny": (4, 128, 4),
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
    "H": (32, 1280, 16),
}
"""Depth, width and heads by ScaleDP's size names."""
ACTION_SIZES: dict[str, ActionConfig] = {
    name: ActionConfig(depth=depth, width=width, heads=heads) for name, (depth, width, heads) in _SCALE_DP.items()
}
"""Experts by size, without robots."""
ACTION_SIZES["compact"] = replace(
    ACTION_SIZES["tiny"],
    objective="flow_clean",
    clip_sample=False,
    patch=10,
    token_width=16,
    reasoning_tail=2,
    sight=512,
    state_skip=True,
    keyframe=1.0,
    dropout=0.3,
)
ACTION_SIZES["compact_numbers"] = replace(
    ACTION_SIZES["compact"], numbers=16, sight=0, token_width=4, reasoning_tail=2, dropout=0.5
)
"""A text about toys states three rectangles, and again where the toy stands and where it goes: 16 numbers."""
ACTION_SIZES["compact_bare"] = replace(ACTION_SIZES["compact"], state_skip=False, keyframe=0.0)
"""For ablations: the conditions reach the chunk by the layers' modulation alone."""


def action_size(name: str, **fields: object) -> ActionConfig:
    """Return the config of size `name` with further `fields`. Raises ValueError, listing the sizes."""
    if name not in ACTION_SIZES:
        raise ValueError(f"no action expert size {name!r}; there are: {', '.join(ACTION_SIZES)}")
    return replace(ACTION_SIZES[name], **fields)  # type: ignore[arg-type]
