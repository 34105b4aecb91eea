# SPDX-License-Identifier: Apache-2.0
"""Control one robot: check and play chunks, hold when in doubt, latch faults. No ROS; clocks are passed in.

The driver node and the in-process rollouts run this same class. What merely holds: no chunk, a refused chunk, a chunk
that ended or expired, a clock that jumped, joint states that stay away (the arm brakes as commanded; at rest nothing is
commanded until they return, then control starts anew from the measured pose). What latches until clear_fault: an
explicit stop, a port error, a measured position that is not finite or far outside the limits, a tracking error that
lasts. While latched the arm brakes within its limits and holds, and every chunk is refused; an arm that is found far
outside its limits is not commanded at all. An arm that stays away from its command, whatever is latched, is led back
to where it is measured, so that it pushes no more; not so where the measurement leapt, as no arm does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_port import OUTSIDE_RAD
from chatvla_control.cartesian_spec import CartesianSpec
from chatvla_control.chunk_check import CheckSettings, ChunkFault, FaultCode, check_chunk
from chatvla_control.chunk_player import ChunkPlayer, Command, PlayerSettings
from chatvla_control.contracts import ActionChunk
from chatvla_control.robot_spec import RobotSpec

__all__ = ["OPERATOR_STOP", "ArmController", "ControllerSettings", "ControllerStatus", "DriverPhase"]

Array = NDArray[np.float64]
OPERATOR_STOP = "stopped:"
"""With this a latched sentence begins that somebody asked for, not a fault."""


class DriverPhase(StrEnum):
    """What the arm does, as diagnostics report it."""

    NO_STATE = "no_state"
    """The measured joints are unknown: braking as commanded, or at rest and nothing is commanded."""
    HOLDING = "holding"
    PLAYING = "playing"
    SETTLING = "settling"
    FAULT = "fault"
    """A fault is latched: braking or at rest until clear_fault."""


@dataclass(frozen=True, kw_only=True)
class ControllerSettings:
    """When a deviation between command and measurement is a fault."""

    tracking_error_rad: float = 0.4
    """Largest distance of a rotary joint from its command; grippers are left out, they close on objects."""
    tracking_time_s: float = 0.5
    """A tracking error that lasts this long latches a fault."""
    outside_rad: float = OUTSIDE_RAD
    """A rotary joint measured this far outside its limits is not moved."""
    leap_rad: float = 0.2
    """A rotary joint whose measurement changes by more than this beyond twice its largest speed has not moved so."""


@dataclass(frozen=True, kw_only=True)
class ControllerStatus:
    """A snapshot for diagnostics."""

    phase: DriverPhase
    fault: str
    """Sentence of the latched fault; empty when none."""
    last_refusal: str
    """Sentence of the last refused chunk; empty when none."""
    accepted: int
    refused: Mapping[str, int]
    """Refused chunks by FaultCode value."""
    ticks: int
    deadline_misses: int
    """Ticks that came more than half a control period late."""
    tracking_error_rad: float
    """Largest distance of a rotary joint from its command at the last tick."""


class ArmController:
    """One robot's chunk check, chunk player, watchdog and fault latch. Not thread-safe: the caller locks."""

    def __init__(
        self,
        spec: RobotSpec,
        *,
        check: CheckSettings | None = None,
        player: PlayerSettings | None = None,
        settings: ControllerSettings | None = None,
        cartesian: CartesianSpec | None = None,
        rate_hz: float | None = None,
    ) -> None:
        """`cartesian` replaces the robot's own Cartesian limits; `rate_hz` is the tick rate, if not the robot's."""
        self.spec = spec
        self.rate_hz = rate_hz or spec.rate_hz
        self._cartesian = cartesian
        self._check = check or CheckSettings()
        self._settings = settings or ControllerSettings()
        self._player = ChunkPlayer(spec, settings=player, cartesian=cartesian, rate_hz=rate_hz)
        self._rotary = np.array([joint.unit == "rad" for joint in spec.joints])
        self._fault = ""
        self._last_refusal = ""
        self._accepted = 0
        self._refused: Counter[str] = Counter()
        self._ticks = 0
        self._deadline_misses = 0
        self._tracking_error_rad = 0.0
        self._tracking_bad_s = 0.0
        self._seen: Array | None = None
        self._unseen_s = 0.0
        self._leapt = np.zeros(spec.width, bool)
        self._started = False
        self._outside = False
        self._command_known = False
        self._last_s = -math.inf
        self._phase = DriverPhase.NO_STATE

    @property
    def fault(self) -> str:
        """Sentence of the latched fault; empty when none."""
        return self._fault

    def accept(self, chunk: ActionChunk, *, now_s: float, measured: Array | None) -> ChunkFault | None:
        """Take `chunk` as the newest plan, or return why not; the plan before it then stays in force.

        `measured` [rad, m], shape (D,); None refuses: without it nothing can be judged.
        """
        known = measured is not None and bool(np.isfinite(measured).all())
        if known and measured is not None and not self._fault:
            self._start(measured, now_s)
        if self._fault:
            fault = ChunkFault(
                code=FaultCode.DRIVER_FAULT,
                message=f"the driver holds on a fault ({self._fault}); call driver/clear_fault",
            )
        elif not known:
            fault = ChunkFault(
                code=FaultCode.NO_STATE, message="the measured joints are unknown; wait for joint states"
            )
        else:
            fault = check_chunk(
                chunk, self.spec, now_s=now_s, measured=measured, limits=self._check, cartesian=self._cartesian
            )
        if fault is not None:
            self.refuse(fault)
            return fault
        self._player.load(chunk)
        self._accepted += 1
        return None

    def refuse(self, fault: ChunkFault) -> None:
        """Count a chunk that was refused before it became a contract (a message that does not convert)."""
        self._refused[fault.code.value] += 1
        self._last_refusal = f"{fault.code.value}: {fault.message}"

    def step(self, *, now_s: float, measured: Array | None, elapsed_s: float | None = None) -> Command | None:
        """Return the command for this tick, or None when nothing may be commanded.

        That is when the joint states are unknown and the arm is at rest as commanded, or it lies outside its limits.
        `measured` [rad, m], shape (D,), None when missing or too old. `elapsed_s` since the last step by a steady
        clock; without it differences of `now_s` count.
        """
        tick_s = now_s - self._last_s if elapsed_s is None else elapsed_s
        self._last_s = now_s
        self._ticks += 1
        if math.isfinite(tick_s) and tick_s > 1.5 / self.rate_hz:
            self._deadline_misses += 1
        if measured is not None and not np.isfinite(measured).all():
            joint = self.spec.joint_names[int(np.argmin(np.isfinite(measured)))]
            self.latch(f"measured position of {joint} is not a finite number; check the arm's encoders and cabling")
            measured = None
        self._watch_leaps(measured, tick_s)
        if measured is None or (self._started and self._found_outside(measured)):
            return self._step_blind(now_s, elapsed_s)
        if self._start(measured, now_s):
            elapsed_s = None
        if not self._started:
            self._phase = DriverPhase.FAULT
            return None
        self._watch_tracking(measured, tick_s)
        command = self._player.step(now_s, elapsed_s)
        self._phase = DriverPhase.FAULT if self._fault else DriverPhase(command.phase.value)
        return command

    def _step_blind(self, now_s: float, elapsed_s: float | None) -> Command | None:
        """Brake from the last command, which needs no measurement; at rest command nothing and begin anew later."""
        self._phase = DriverPhase.FAULT if self._fault else DriverPhase.NO_STATE
        self._player.drop()
        self._started = self._started and self._in_motion()
        return self._player.step(now_s, elapsed_s) if self._started else None

    def _in_motion(self) -> bool:
        return bool(self._player.velocities.any())

    def stop(self, reason: str) -> None:
        """Brake within the limits, hold, and latch `reason` until clear_fault."""
        self.latch(f"{OPERATOR_STOP} {reason}")

    def latch(self, sentence: str) -> None:
        """Latch a fault: brake, hold and refuse chunks until clear_fault. The first fault stays until then."""
        self._fault = self._fault or sentence
        self._phase = DriverPhase.FAULT
        led_back_to = self._player.goal
        self._player.drop()
        if led_back_to is not None:
            self._player.hold_at(led_back_to)

    def lose(self) -> None:
        """Note that commands do not reach the arm: when they do again, control starts anew from the measured pose."""
        self._player.drop()
        self._started = False

    def clear_fault(self) -> str | None:
        """Release the latch and return the fault's sentence, or None when there was none.

        Control starts anew from the measured pose; an arm that still brakes does so first. Grippers keep their
        commanded opening, so that a held object stays held.
        """
        cleared = self._fault or None
        if cleared:
            self._fault = ""
            self._tracking_bad_s = 0.0
            self._leapt[:] = False
            self._outside = False
            self._started = self._started and self._in_motion()
        return cleared

    def status(self) -> ControllerStatus:
        """Return a snapshot for diagnostics."""
        return ControllerStatus(
            phase=self._phase,
            fault=self._fault,
            last_refusal=self._last_refusal,
            accepted=self._accepted,
            refused=dict(self._refused),
            ticks=self._ticks,
            deadline_misses=self._deadline_misses,
            tracking_error_rad=self._tracking_error_rad,
        )

    def _start(self, measured: Array, now_s: float) -> bool:
        """Begin at rest at `measured`, unless begun already or the arm lies outside; return whether it began."""
        if self._started or self._outside:
            return False
        if self._found_outside(measured):
            self._outside = True
            return False
        start = np.where(self._rotary, measured, self._player.positions) if self._command_known else measured
        self._player.reset(start, now_s)
        self._started = self._command_known = True
        return True

    def _found_outside(self, measured: Array) -> bool:
        """Latch a rotary joint far outside its limits, if there is one; return whether there is."""
        outside = np.maximum(self.spec.lower - measured, measured - self.spec.upper)
        far = self._rotary & (outside > self._settings.outside_rad)
        if not far.any():
            return False
        joint = int(np.argmax(far))
        self.latch(
            f"{self.spec.joint_names[joint]} is measured at {measured[joint]:.3f} rad, {outside[joint]:.3f} outside "
            "its limits; move the arm by hand, then call driver/clear_fault"
        )
        return True

    def _watch_leaps(self, measured: Array | None, tick_s: float) -> None:
        """Note rotary joints whose measurement changes faster than an arm can move."""
        self._unseen_s += max(tick_s, 0.0) if math.isfinite(tick_s) else 0.0
        if measured is None or (self._seen is not None and np.array_equal(measured, self._seen)):
            return
        if self._seen is not None:
            farthest = self._settings.leap_rad + 2.0 * self.spec.velocity * self._unseen_s
            self._leapt |= self._rotary & (np.abs(measured - self._seen) > farthest)
        self._seen, self._unseen_s = measured.copy(), 0.0

    def _watch_tracking(self, measured: Array, tick_s: float) -> None:
        error = np.abs(self._player.positions - measured) * self._rotary
        self._tracking_error_rad = float(error.max())
        self._leapt &= error > self._settings.tracking_error_rad
        if self._tracking_error_rad <= self._settings.tracking_error_rad:
            self._tracking_bad_s = 0.0
            return
        self._tracking_bad_s += tick_s if math.isfinite(tick_s) else 0.0
        if self._tracking_bad_s < self._settings.tracking_time_s:
            return
        joint = int(np.argmax(error))
        leapt = bool(self._leapt.any())
        if not self._fault:
            what = "its measurement leapt; look at the encoder and its cable" if leapt else "look for a collision"
            self.latch(
                f"{self.spec.joint_names[joint]} stayed {error[joint]:.2f} rad from its command for "
                f"{self._tracking_bad_s:.1f} s, limit {self._settings.tracking_error_rad} rad; {what}"
            )
        led = self._player.goal
        if not leapt and (
            led is None or (np.abs(led - measured) * self._rotary).max() > self._settings.tracking_error_rad
        ):
            # Stop pushing, also when something else was latched first, and again when the arm was moved on since.
            self._player.hold_at(np.where(self._rotary, measured, self._player.positions))
