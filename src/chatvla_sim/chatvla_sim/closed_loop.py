# SPDX-License-Identifier: Apache-2.0
"""Close the loop between a bench and the arm controller in simulated time, as the driver does in real time. No ROS.

Demonstrations and in-process rollouts run this same loop. D joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_controller import ArmController
from chatvla_control.chunk_check import ChunkFault
from chatvla_control.contracts import ActionChunk, Observation
from chatvla_sim.bench import Bench

__all__ = ["ClosedLoop", "Tick"]


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One control period: what was measured at its start and what was commanded for it."""

    time_s: float
    measured: NDArray[np.float64]
    """rad and m, shape (D,)."""
    commanded: NDArray[np.float64]
    """The controller's command, without any disturbance, rad and m, shape (D,)."""


class ClosedLoop:
    """One bench and one controller, a control period at a time."""

    def __init__(self, bench: Bench, controller: ArmController | None = None) -> None:
        self.bench = bench
        self.controller = controller or ArmController(bench.spec)
        self._period_s = 1.0 / bench.spec.rate_hz

    @property
    def time_s(self) -> float:
        """Simulated time [s]."""
        return self.bench.time_s

    def observe(self, instruction: str, views: Sequence[str] | None = None) -> Observation:
        """Return what a policy sees now; `views` limits what is rendered (none for a policy that looks at no image)."""
        now_s = self.bench.time_s
        chosen = self.bench.views if views is None else tuple(views)
        return Observation(
            images={view: self.bench.render(view) for view in chosen},
            image_stamps_s=dict.fromkeys(chosen, now_s),
            joint_positions=self.bench.joint_state().positions.copy(),
            instruction=instruction,
            stamp_s=now_s,
        )

    def accept(self, chunk: ActionChunk) -> ChunkFault | None:
        """Give `chunk` to the controller; return why it was refused, or None."""
        return self.controller.accept(chunk, now_s=self.bench.time_s, measured=self.bench.joint_state().positions)

    def tick(self, disturbance: NDArray[np.float64] | None = None) -> Tick:
        """Advance one control period; `disturbance` [rad, m] is added to what the arm gets, behind the controller."""
        now_s = self.bench.time_s
        measured = self.bench.joint_state().positions.copy()
        command = self.controller.step(now_s=now_s, measured=measured)
        wanted = measured if command is None else command.positions
        sent = wanted if disturbance is None else wanted + disturbance
        self.bench.command(np.clip(sent, self.bench.spec.lower, self.bench.spec.upper))
        self.bench.step(self._period_s)
        return Tick(time_s=now_s, measured=measured, commanded=wanted.copy())
