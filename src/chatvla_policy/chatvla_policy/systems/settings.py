# SPDX-License-Identifier: Apache-2.0
"""Say how a checkpoint is run, and what observations it takes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from chatvla_control.contracts import Observation
from chatvla_policy.checkpoint.setup import RobotSetup
from chatvla_policy.model.reasoner import Sampling

__all__ = ["ObservationError", "PolicySettings", "Reuse", "check_observation"]


class ObservationError(ValueError):
    """The observation does not fit the checkpoint; the message names the part, what came and what is expected."""


class Reuse(StrEnum):
    """What happens to the last reasoning when the next observation comes."""

    NEVER = "never"
    """Every observation gets a freshly decoded text."""
    REFRESH = "refresh"
    """The text stays for `reason_every_s`; its hidden states are refreshed on the new image in one forward."""
    DRAFT = "draft"
    """The text is the draft of the next one: one forward where it still holds, lossless under greedy decoding."""


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """How a checkpoint is run."""

    sampling: Sampling = field(default_factory=Sampling)
    denoise_steps: int | None = None
    """Denoising steps; None takes the checkpoint's own number."""
    second_look: bool = True
    """Whether a text that contradicts itself is read a second time."""
    reuse: Reuse = Reuse.NEVER
    reason_every_s: float = 10.0
    """With REFRESH: how long a text serves; then it is the draft of a new one."""
    longest_text_s: float = np.inf
    """With REFRESH: how long a text may serve at most; the checkpoint sets it."""
    commit_s: float = 0.0
    """How much of the chunk being played is kept at the start of the next: at least the time one inference takes."""

    def with_longest_text(self, text_age_s: float) -> PolicySettings:
        """Return the settings for a checkpoint whose texts serve `text_age_s` at most, 0 for any time."""
        longest_s = text_age_s or np.inf
        return replace(self, longest_text_s=longest_s, reason_every_s=min(self.reason_every_s, longest_s))


def check_observation(observation: Observation, setup: RobotSetup) -> None:
    """Raise ObservationError when views or joints do not fit the checkpoint's robot."""
    for view in setup.cameras:
        if view not in observation.images:
            came = ", ".join(observation.images) or "none"
            raise ObservationError(f"no image of view {view!r}; the observation has: {came}")
    width = setup.spec.width
    if observation.joint_positions.shape != (width,):
        raise ObservationError(
            f"joint positions have shape {observation.joint_positions.shape}, {setup.spec.name} expects ({width},)"
        )
    finite = np.isfinite(observation.joint_positions)
    if not finite.all():
        raise ObservationError(f"position of {setup.spec.joint_names[int(np.argmin(finite))]} is not a finite number")
