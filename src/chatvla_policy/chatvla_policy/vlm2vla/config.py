# SPDX-License-Identifier: Apache-2.0
"""Say all of a VLM2VLA checkpoint but its weights. Stored as config.json; fields that are not known are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from chatvla_policy.strict_json import from_plain
from chatvla_policy.vlm2vla.prompts import PROMPTS

__all__ = ["ArmAnchors", "RobotMotion", "Temperatures", "Variant", "Vlm2VlaConfig"]

Variant = Literal["full", "action_tokens", "no_reasoning"]
"""full: the method. action_tokens: digits are ten rarely used tokens. no_reasoning: actions straight from the task."""


@dataclass(frozen=True, kw_only=True)
class Temperatures:
    """How freely each answer is drawn; 0 takes the likeliest token.

    VLM2VLA, appendix D.4; there subtasks have 1.0 outside of the training distribution, which no policy can tell.
    """

    subtasks: float = 0.5
    plan: float = 0.1
    actions: float = 0.5
    verify: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a temperature that nothing can be drawn at."""
        for item in fields(self):
            if not 0.0 <= getattr(self, item.name) <= 2.0:
                raise ValueError(f"temperature {item.name} is {getattr(self, item.name)}, must lie in 0 to 2")

    @classmethod
    def from_text(cls, text: str) -> Temperatures:
        """Return the temperatures of a text such as "0.5,0.1,0.5,0": subtasks, plan, actions, verify.

        An empty text gives the paper's. Raises ValueError.
        """
        if not text.strip():
            return cls()
        names = [item.name for item in fields(cls)]
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            values = []
        if len(values) != len(names):
            raise ValueError(f"{text!r} is not {len(names)} numbers with commas: {', '.join(names)}")
        return cls(**dict(zip(names, values, strict=True)))

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Temperatures | None:
        """Return what CHATVLA_TEMPERATURES says; None where it says nothing. Raises ValueError."""
        text = variables.get("CHATVLA_TEMPERATURES", "")
        return cls.from_text(text) if text.strip() else None


@dataclass(frozen=True, kw_only=True)
class ArmAnchors:
    """How one arm's tool was turned where, in demonstrations: position [m] and 6D rotation, 9 numbers each.

    Departure: the paper's robot never turns its gripper; a card goes onto a sloped board. The text stays
    [dx, dy, dz, gripper], and the tool turns with its place as it did in the data. Without anchors it keeps its turn.
    """

    arm: str
    anchors: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class RobotMotion:
    """What a robot's data says about text and motion."""

    robot: str
    open_m: float
    """Gripper opening commanded for 1."""
    closed_m: float
    """Gripper opening commanded for 0."""
    arms: tuple[ArmAnchors, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Vlm2VlaConfig:
    """One VLM2VLA checkpoint."""

    system: str = "vlm2vla"
    base: str = ""
    """Hub name or folder of the base model; empty: the checkpoint's own folder base/."""
    variant: Variant = "full"
    prompts: str = "paper"
    """Key of prompts.PROMPTS."""
    tell_pose: bool = False
    """Write the tool's place into the prompts. Departure: helps a small model; the paper's sees the image alone."""
    decimals: int = 3
    """Of lengths [m] in prompts and answers. Departure: with 2 a small model has half the digits to get right."""
    temperatures: Temperatures = field(default_factory=Temperatures)
    top_p: float = 0.95
    digit_tokens: tuple[int, ...] = ()
    """Token ids of the digits 0 to 9; empty for plain text."""
    max_new_tokens: int = 512
    max_tries: int = 5
    """How often one answer is asked for before the policy gives up on it."""
    max_retries: int = 2
    """How often a subtask is tried again when the verifier says that it failed."""
    image_width: int = 320
    image_height: int = 240
    speed_m_s: float = 0.25
    """Speed of the tool between the actions' ends."""
    grip_s: float = 0.5
    """Time for the gripper to open or close."""
    robots: tuple[RobotMotion, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be run."""
        if self.prompts not in PROMPTS:
            raise ValueError(f"no prompts {self.prompts!r}; there are: {', '.join(PROMPTS)}")
        if self.variant not in get_args(Variant):
            raise ValueError(f"no variant {self.variant!r}; there are: {', '.join(get_args(Variant))}")
        if (self.variant == "action_tokens") != bool(self.digit_tokens) or len(set(self.digit_tokens)) not in (0, 10):
            raise ValueError(
                f"variant {self.variant} with {len(set(self.digit_tokens))} digit tokens; it takes 0 or 10"
            )
        if not 2 <= self.decimals <= 4:
            raise ValueError(f"decimals is {self.decimals}, must be 2 to 4")
        if self.max_tries < 1 or self.max_retries < 0 or self.speed_m_s <= 0:
            raise ValueError("max_tries must be at least 1, max_retries 0 or more, speed_m_s positive")

    def motion(self, robot: str) -> RobotMotion:
        """Return the motion of `robot`. Raises ValueError, listing those that exist."""
        for item in self.robots:
            if item.robot == robot:
                return item
        raise ValueError(
            f"no motion for robot {robot!r}; there are: {', '.join(m.robot for m in self.robots) or 'none'}"
        )

    @classmethod
    def from_plain(cls, data: Any) -> Vlm2VlaConfig:
        """Return the config of parsed JSON. Raises StrictJsonError naming the first field that does not fit."""
        return from_plain(cls, data, where="config")
