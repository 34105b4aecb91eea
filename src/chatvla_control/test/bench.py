# SPDX-License-Identifier: Apache-2.0
"""A controller and an arm that is where it is commanded, on a clock of their own."""

from __future__ import annotations

from chatvla_control.arm_controller import ArmController, DriverPhase
from chatvla_control.chunk_check import ChunkFault

from .chunks import HOME, NOW_S, SPEC, chunk, wave

TICK_S = 0.02


class Bench:
    """A controller whose arm is where it was commanded, with a clock of its own."""

    def __init__(self) -> None:
        self.controller = ArmController(SPEC)
        self.now_s = NOW_S
        self.measured = HOME.copy()
        self.tick()

    def tick(self, count: int = 1, follow: bool = True) -> None:
        for _ in range(count):
            command = self.controller.step(now_s=self.now_s, measured=self.measured, elapsed_s=TICK_S)
            if command is not None and follow:
                self.measured = command.positions
            self.now_s += TICK_S

    def send(self, **changes: object) -> ChunkFault | None:
        times = {"stamp_s": self.now_s, "start_s": self.now_s, "valid_until_s": self.now_s + 1.2}
        return self.controller.accept(
            chunk(**{"actions": wave() - HOME + self.measured, **times, **changes}),
            now_s=self.now_s,
            measured=self.measured,
        )

    @property
    def phase(self) -> DriverPhase:
        return self.controller.status().phase
