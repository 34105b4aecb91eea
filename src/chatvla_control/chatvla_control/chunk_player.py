# SPDX-License-Identifier: Apache-2.0
"""Play action chunks as joint commands over time, inside the robot's limits whatever comes in. No ROS, no clock.

Units: rad, m, s; arrays of shape (D,) in RobotSpec order; a chunk's rows have shape (T, D), or (T, 10 per arm) in
CARTESIAN_POSE. Between rows the reference is linear; between poses it is a straight line and a slerp. Row k belongs to
start_s + k * step_period_s: rows whose time has passed are never played. Every tick goes through `next_motion`:
position, speed and acceleration limits hold for any chunk, delay and clock, where acceleration is the change of the
commanded speed over the tick's own length. Where the robot's CartesianSpec asks for it, and while poses are played, the
tool's limits hold at every tick too (cartesian_guard.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from chatvla_control.cartesian import arm_models
from chatvla_control.cartesian_guard import CartesianGuard
from chatvla_control.cartesian_spec import POSE_WIDTH, CartesianSpec, cartesian_spec
from chatvla_control.chunk_track import JointTrack, PoseTrack, Track
from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.motion_limits import MotionLimits, next_motion, stopping_point
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.rotations import matrix_from_six

__all__ = ["ChunkPlayer", "Command", "PlayPhase", "PlayerSettings"]

Array = NDArray[np.float64]
_SHORTEST_TICK_S = 1e-6
_LONGEST_TICK_S = 3600.0


class PlayPhase(StrEnum):
    """What the player does at a tick."""

    HOLDING = "holding"
    """No chunk to play: braking to rest, or at rest."""
    PLAYING = "playing"
    """Following the rows of a chunk."""
    SETTLING = "settling"
    """The rows have ended, the chunk is still valid: coming to rest at its last row."""


@dataclass(frozen=True, kw_only=True)
class PlayerSettings:
    """How chunks are blended and clocks are trusted; seconds."""

    blend_s: float = 0.1
    """Time over which the offset between the old motion and a new chunk fades out."""
    catch_up: float = 0.5
    """Share of the acceleration limit spent on a tracking error, 0 .. 1; the rest is for the chunk's own motion."""
    clock_jump_s: float = 0.1
    """A clock that steps back by more than this drops the chunk: its times no longer mean anything."""
    longest_tick: float = 2.5
    """A tick longer than this many control periods only brakes: missed motion is not made up in one step."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to send to the joints at one tick."""

    positions: Array
    """rad and m, shape (D,)."""
    velocities: Array
    """Commanded speeds, rad/s and m/s, shape (D,)."""
    phase: PlayPhase
    tick_s: float
    """Length of the tick the command covers: the limits hold with respect to it."""


class ChunkPlayer:
    """Turn chunks into one command per tick. `reset` first; not thread-safe."""

    def __init__(
        self,
        spec: RobotSpec,
        *,
        settings: PlayerSettings | None = None,
        cartesian: CartesianSpec | None = None,
        rate_hz: float | None = None,
    ) -> None:
        """`cartesian` replaces the robot's own Cartesian limits; `rate_hz` is the tick rate, if not the robot's."""
        self._spec = spec
        self._settings = settings or PlayerSettings()
        self._limits = MotionLimits.of(spec)
        self._period_s = 1.0 / (rate_hz or spec.rate_hz)
        cartesian = cartesian or cartesian_spec(spec.name)
        self._arms = arm_models(spec, cartesian)
        self._guard = CartesianGuard(spec, self._arms)
        self._always_guarded = cartesian is not None and cartesian.guards_joint_chunks
        self._guarded = self._always_guarded
        self._rest: Array = np.zeros(spec.width)
        self._positions: Array = np.array(spec.home, np.float64)
        self._velocities: Array = np.zeros(spec.width)
        self._last_reference: Array = self._positions
        self._now_s: float | None = None
        self._active: Track | None = None
        self._waiting: ActionChunk | None = None
        self._hold: Array | None = None
        self._goal: Array | None = None
        self._phase = PlayPhase.HOLDING

    @property
    def goal(self) -> Array | None:
        """Where `hold_at` leads [rad, m], shape (D,); None when it does not."""
        return self._goal

    @property
    def positions(self) -> Array:
        """Last commanded positions [rad, m], shape (D,)."""
        return self._positions.copy()

    @property
    def velocities(self) -> Array:
        """Last commanded speeds [rad/s, m/s], shape (D,)."""
        return self._velocities.copy()

    @property
    def guarded(self) -> bool:
        """True when the last tick held the tool's limits as well as the joints'."""
        return self._guarded and self._guard.holds

    def reset(self, positions: Array, now_s: float) -> None:
        """Start at rest at measured `positions` [rad, m], shape (D,), moved inside the limits; forget every chunk.

        Raises ValueError when the positions have the wrong shape or are not finite.
        """
        measured = np.array(positions, np.float64)
        if measured.shape != (self._spec.width,) or not np.isfinite(measured).all():
            raise ValueError(f"start positions must be {self._spec.width} finite numbers, got {measured!r:.200}")
        self._positions = np.clip(measured, self._limits.lower, self._limits.upper)
        self._velocities = np.zeros(self._spec.width)
        self._last_reference = self._positions
        self._now_s = now_s if math.isfinite(now_s) else None
        self.drop()

    def load(self, chunk: ActionChunk) -> None:
        """Take `chunk` as the newest plan: from its start time on, the present motion goes on until then.

        Limits need not hold (see chunk_check for refusing early); shape, mode, finiteness and the rotations' rank must.
        Raises ValueError.
        """
        width = self._spec.width
        if chunk.mode is ActionMode.CARTESIAN_POSE and self._arms:
            width = POSE_WIDTH * len(self._arms)
        elif chunk.mode is not ActionMode.JOINT_POSITION:
            raise ValueError(f"the player of {self._spec.name} plays joint positions, got mode {chunk.mode!r}")
        if chunk.actions.ndim != 2 or len(chunk.actions) == 0 or chunk.actions.shape[1] != width:
            raise ValueError(f"chunk has shape {chunk.actions.shape}, expected (T, {width}) with T >= 1")
        times = (chunk.start_s, chunk.valid_until_s, chunk.step_period_s)
        if not (all(math.isfinite(time) for time in times) and chunk.step_period_s > 0.0):
            raise ValueError(f"chunk times must be finite and the step period positive, got {times}")
        if not np.isfinite(chunk.actions).all():
            raise ValueError("chunk has actions that are not finite")
        if chunk.mode is ActionMode.CARTESIAN_POSE:
            for arm in self._arms:
                matrix_from_six(chunk.actions[:, arm.column + 3 : arm.column + 9])
        self._waiting = chunk

    def drop(self) -> None:
        """Forget every chunk: brake to rest and hold."""
        self._active = self._waiting = self._hold = self._goal = None
        self._phase = PlayPhase.HOLDING

    def hold_at(self, positions: Array) -> None:
        """Forget every chunk and go to `positions` [rad, m], shape (D,), within the limits; hold there."""
        self.drop()
        self._goal = np.clip(positions, self._limits.lower, self._limits.upper)

    def step(self, now_s: float, elapsed_s: float | None = None) -> Command:
        """Return the command for `now_s`.

        `elapsed_s` is the time since the last step by a steady clock; without it the difference of `now_s` counts, and
        one control period when `now_s` stepped back. A repeated call at the same time repeats the command.
        """
        tick_s = self._tick(now_s, elapsed_s)
        self._follow_clock(now_s)
        if tick_s >= _SHORTEST_TICK_S:
            reference, reference_velocity, phase = self._reference(now_s, tick_s)
            positions, velocities = next_motion(
                self._positions,
                self._velocities,
                reference,
                reference_velocity,
                tick_s,
                self._limits,
                catch_up=self._settings.catch_up,
            )
            if self._guarded:
                wanted = velocities
                positions, velocities = self._guard.limited(self._positions, self._velocities, wanted, tick_s)
                if phase is PlayPhase.HOLDING and not np.array_equal(velocities, wanted):
                    # Joints that brake in proportion rest elsewhere than where each alone would: none turns back.
                    self._hold = None
            else:
                self._guard.release()
            self._positions, self._velocities = positions, velocities
            self._phase = phase
        return Command(
            positions=self._positions.copy(), velocities=self._velocities.copy(), phase=self._phase, tick_s=tick_s
        )

    def _tick(self, now_s: float, elapsed_s: float | None) -> float:
        if elapsed_s is not None and math.isfinite(elapsed_s):
            return min(max(elapsed_s, 0.0), _LONGEST_TICK_S)
        if self._now_s is None or not math.isfinite(now_s) or now_s < self._now_s:
            return self._period_s
        return min(now_s - self._now_s, _LONGEST_TICK_S)

    def _follow_clock(self, now_s: float) -> None:
        """Begin a waiting chunk whose time has come; drop all chunks when the clock cannot be trusted."""
        before_s = self._now_s
        if not math.isfinite(now_s) or (before_s is not None and now_s < before_s - self._settings.clock_jump_s):
            self.drop()
        if math.isfinite(now_s):
            self._now_s = now_s
        if self._waiting is None or self._waiting.start_s > now_s:
            return
        chunk, self._waiting, self._hold, self._goal = self._waiting, None, None, None
        from_s = now_s if before_s is None else min(before_s, now_s)
        track = self._track(chunk, from_s)
        # The reference goes on from its last value, moves as the new chunk moves and loses the difference on the way.
        track.offset = self._last_reference - track.row_at(from_s)
        self._active = track

    def _track(self, chunk: ActionChunk, from_s: float) -> Track:
        blend_s = self._settings.blend_s
        if chunk.mode is ActionMode.CARTESIAN_POSE:
            self._guarded = True
            return PoseTrack(chunk, self._arms, start=self._positions, blend_from_s=from_s, blend_s=blend_s)
        self._guarded = self._always_guarded
        return JointTrack(
            chunk, lower=self._limits.lower, upper=self._limits.upper, blend_from_s=from_s, blend_s=blend_s
        )

    def _reference(self, now_s: float, tick_s: float) -> tuple[Array, Array, PlayPhase]:
        """Return target [rad, m], its mean speed over the tick and the phase."""
        rest = self._rest
        if self._active is not None and now_s > self._active.valid_until_s:
            self._active = self._hold = None
        track = self._active
        if tick_s > self._settings.longest_tick * self._period_s:
            phase = PlayPhase.HOLDING if track is None else PlayPhase.PLAYING
            self._hold, self._last_reference = None, self._positions
            return self._positions, rest, phase
        if track is not None and now_s <= track.end_s:
            reference = np.minimum(np.maximum(track.at(now_s), self._limits.lower), self._limits.upper)
            velocity = (reference - self._last_reference) / tick_s
            self._last_reference = reference
            return reference, velocity, PlayPhase.PLAYING
        if self._goal is not None:
            self._hold = self._goal
        elif self._hold is None:
            stop = stopping_point(self._positions, self._velocities, self._limits)
            last = stop if track is None else track.target(track.steps - 1, 0.0)
            last = np.minimum(np.maximum(last, self._limits.lower), self._limits.upper)
            # A joint that can no longer stop at the last row stays where it stops: it never turns back.
            self._hold = np.where(self._velocities * (stop - last) > 0.0, stop, last)
        self._last_reference = self._hold
        return self._hold, rest, PlayPhase.HOLDING if track is None else PlayPhase.SETTLING
