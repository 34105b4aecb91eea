# SPDX-License-Identifier: Apache-2.0
"""Push the arms off their way, so that demonstrations show the way back.

The arm gets the expert's command plus a disturbance; what is recorded as action is the expert's command alone, which
corrects (the idea of DART, Laskey et al. 2017). A disturbance is a series of pushes at random times, each a raised
cosine

  d(t) = a (1 - cos(2 pi t / w)) / 2,  0 <= t <= w,  a ~ N(0, sigma) per rotary joint, w ~ U(0.3, 0.8) s.

Shapes: D joints. Units: rad, s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.robot_spec import RobotSpec

__all__ = ["Disturbance", "DisturbanceSettings", "start_pose"]


@dataclass(frozen=True, kw_only=True)
class DisturbanceSettings:
    """How often and how hard an episode is disturbed."""

    share: float = 0.6
    """Share of episodes with pushes."""
    pushes_hz: float = 0.5
    """Mean pushes per second."""
    sigma_rad: float = 0.03
    """Standard deviation of a push per rotary joint."""
    start_rad: float = 0.08
    """Half-width of the start pose around home, per rotary joint."""
    home_share: float = 0.5
    """Share of episodes that start at home itself, as trials do. Where all start beside it, home is seen at the end of
    episodes alone, and the policy learns to stay there."""


class Disturbance:
    """Offsets of one episode, a tick at a time."""

    def __init__(self, spec: RobotSpec, settings: DisturbanceSettings, rng: np.random.Generator) -> None:
        self._rotary = np.array([joint.unit == "rad" for joint in spec.joints])
        self._settings, self._rng = settings, rng
        self._period_s = 1.0 / spec.rate_hz
        self.active = bool(rng.random() < settings.share)
        """Whether this episode is disturbed at all."""
        self.pushes = 0
        self._push: NDArray[np.float64] | None = None
        self._width_s = self._elapsed_s = 0.0

    def step(self) -> NDArray[np.float64] | None:
        """Return the offset of this tick [rad, m], shape (D,), or None."""
        if not self.active:
            return None
        if self._push is None and self._rng.random() < self._settings.pushes_hz * self._period_s:
            self._push = self._rng.normal(0.0, self._settings.sigma_rad, len(self._rotary)) * self._rotary
            self._width_s = self._rng.uniform(0.3, 0.8)
            self._elapsed_s = 0.0
            self.pushes += 1
        if self._push is None:
            return None
        self._elapsed_s += self._period_s
        if self._elapsed_s >= self._width_s:
            self._push = None
            return None
        return self._push * (1 - np.cos(2 * np.pi * self._elapsed_s / self._width_s)) / 2


def start_pose(spec: RobotSpec, settings: DisturbanceSettings, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return home or a pose near it [rad, m], shape (D,), within the limits; grippers as at home."""
    if rng.random() < settings.home_share:
        return np.array(spec.home)
    rotary = np.array([joint.unit == "rad" for joint in spec.joints])
    offset = rng.uniform(-settings.start_rad, settings.start_rad, spec.width) * rotary
    return np.clip(np.array(spec.home) + offset, spec.lower, spec.upper)
