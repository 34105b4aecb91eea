# SPDX-License-Identifier: Apache-2.0
"""Decide when to infer and what to publish: two clocks, one plan. No ROS, no threads, no clock but `now_s`.

Acting: a chunk every `chunk_period_s`, computed while the one before it plays; the policy keeps what will have been
played by then (real-time chunking), and the seam is bridged where inference took longer. Reasoning: a text is kept
and refreshed on each new image until `reason_every_s` have passed, the scene has changed, or the instruction or an
override has. Where the caller can write a text apart from chunks (`texts_apart`), chunks go on with the last text until
there is another of the same instruction. Units: rad, m, s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from chatvla_control.contracts import ActionChunk, ActionMode, Inference, Observation, Reasoning, ReasoningSource
from chatvla_control.robot_spec import RobotSpec
from chatvla_policy.runtime.delay import DelayForecast
from chatvla_policy.runtime.inference import Job, Outcome
from chatvla_policy.runtime.observation_sync import InputFault, ObservationSync
from chatvla_policy.runtime.scene_change import SceneMemory
from chatvla_policy.runtime.scheduler_settings import Counts, SchedulerSettings
from chatvla_policy.runtime.seam import begun_later, holding_chunk, joined_chunk, plan_at, stitched_plan

__all__ = ["Scheduler"]

_NOT_FOLLOWED_S, _NOT_FOLLOWED_RAD = 0.1, 0.1
_RESTING_RAD = 0.01
_CLOCK_JUMP_S = 0.1
"""A clock that steps back by more than this, as the driver's player has it: no time from before means anything."""
_SCENE_REST_S = 1.0
"""A scene that keeps changing brings a new text at most this often."""


@dataclass(kw_only=True)
class _Following:
    instruction: str
    seed: int
    fresh: bool = True
    """No inference was begun yet."""
    since_s: float | None = None
    """When it was first looked at; older images may show the scene that was there before."""


@dataclass(kw_only=True)
class Scheduler:
    """One robot's plan. Not thread-safe: the caller takes turns."""

    spec: RobotSpec
    sync: ObservationSync
    settings: SchedulerSettings = field(default_factory=SchedulerSettings)
    tuning: Any = None
    """Settings of the policy, a dataclass with `commit_s`; None when it has none."""
    forced: str | None = None
    texts_apart: bool = False
    """Whether the caller takes `next_text`: then only an instruction's first inference writes a text."""
    thinks_about: Callable[[str], bool] = lambda text: False
    """Whether the policy writes a text about this forced one, where it follows others as they are."""
    writing: bool = False
    """A text from `next_text` is on its way."""
    counts: Counts = field(default_factory=Counts)
    _playing: ActionChunk | None = None
    _seam: tuple[ActionChunk, ActionChunk | None, Any] | None = None
    """A published chunk, and what was played before it: they are put together after publishing."""
    _following: _Following | None = None
    _epoch: int = 0
    _busy: bool = False
    _now_s: float = -np.inf
    _due_s: float = -np.inf
    _last_stamp_s: float = -np.inf
    _reasoned_s: float = -np.inf
    _delay: DelayForecast = field(default_factory=DelayForecast)
    _writing_delay: DelayForecast = field(default_factory=DelayForecast)
    """Of inferences foreseen to write a text: several times as long as those that keep one."""
    _scene: SceneMemory = field(default_factory=SceneMemory)
    _overtaken: bool = False
    """The scene has changed since the last text was written."""
    _written: Reasoning | None = None
    """A text that the next inference takes up."""
    _read: Observation | None = None
    """What the newest text was written about: it is remembered after publishing."""

    def __post_init__(self) -> None:
        """Make what is the same each time."""
        allowed = _NOT_FOLLOWED_RAD + _NOT_FOLLOWED_S * self.spec.velocity
        self._allowed = np.where(self.spec.rotary, allowed, np.inf)

    @property
    def instruction(self) -> str | None:
        """The instruction that is followed, None when none is."""
        return self._following.instruction if self._following else None

    @property
    def playing(self) -> ActionChunk | None:
        """The plan: the last published chunk with a second of what was played before it."""
        if self._seam is not None:
            chunk, playing, measured = self._seam
            self._playing, self._seam = stitched_plan(chunk, playing=playing, measured=measured), None
        return self._playing

    @property
    def commit_s(self) -> float:
        """Time of the plan that the next chunk keeps where the text is kept as well, s."""
        return self._delay.seconds() if self.settings.chunking else 0.0

    def _committed_s(self, *, writes: bool) -> float:
        """Return the time of the plan that the next chunk keeps, s."""
        if not (writes and self.settings.chunking):
            return self.commit_s
        return max(self._writing_delay.seconds(), self.commit_s)

    def follow(self, instruction: str, *, seed: int = 0) -> None:
        """Take up an instruction; the plan goes on until its first chunk."""
        self._following = _Following(instruction=instruction, seed=seed)
        self._new_epoch()

    def stop(self, now_s: float) -> ActionChunk | None:
        """Follow nothing; return a chunk that brakes to rest when something is being played."""
        self._follow_clock(now_s)
        self._following = None
        self._new_epoch()
        playing, self._playing = self.playing, None
        if playing is None or now_s >= playing.valid_until_s:
            return None
        return holding_chunk(playing, now_s=now_s, spec=self.spec)

    def force(self, text: str | None) -> None:
        """Act on `text` from the next chunk on; None gives the reasoning back to the policy."""
        if text != self.forced:
            self.forced = text
            self._new_epoch()

    def fault(self, now_s: float) -> InputFault | None:
        """Return what keeps chunks from being made at `now_s`, or None."""
        self._follow_clock(now_s)
        return self.sync.fault(now_s)

    def is_due(self, now_s: float) -> bool:
        """Return whether the next inference waits for nothing but its inputs."""
        self._follow_clock(now_s)
        return self._following is not None and not self._busy and now_s >= self._due_s

    def next_job(self, now_s: float) -> Job | None:
        """Return the inference to begin now, or None. The caller gives its outcome to `finish` or calls `abandon`."""
        following = self._following
        if following is None or not self.is_due(now_s):
            return None
        stamp_s = self.sync.newest_stamp_s()
        following.since_s = now_s if following.since_s is None else following.since_s
        if stamp_s is None or stamp_s == self._last_stamp_s or stamp_s < following.since_s:
            return None
        observation = self.sync.observe(following.instruction, now_s)
        if observation is None:
            return None
        self._busy, self._last_stamp_s = True, stamp_s
        self._due_s = max(now_s, self._due_s + self.settings.chunk_period_s)
        if self._due_s < now_s + 0.5 * self.settings.chunk_period_s:
            self._due_s = now_s + self.settings.chunk_period_s
        anew = self._keeps_text() and not self.writing and self._scene_changed(observation, stamp_s)
        apart = self._writes_apart()
        if apart:
            self._overtaken, anew = self._overtaken or anew, False
        writes = anew or self._writes(stamp_s, fresh=following.fresh)
        settings = None if self.tuning is None else replace(self.tuning, commit_s=self._committed_s(writes=writes))
        if apart:
            settings = replace(settings, reason_every_s=np.inf)
        seed = following.seed if following.fresh else None
        following.fresh = False
        adopted, self._written = self._written, None
        return Job(
            epoch=self._epoch,
            observation=observation,
            forced=self.forced,
            previous=self._followed_plan(now_s) if self.settings.chunking else None,
            settings=settings,
            reason_anew=anew,
            writes=writes,
            reset_seed=seed,
            adopt=adopted,
            begun_s=now_s,
        )

    def next_text(self, now_s: float) -> Job | None:
        """Return what to write a text about now, or None. The caller calls `take_text` or `abandon_text` next."""
        following = self._following
        if self.writing or following is None or not self._writes_apart():
            return None
        if not (self._overtaken or now_s - self._reasoned_s >= self.tuning.reason_every_s):
            return None
        observation = self.sync.observe(following.instruction, now_s)
        if observation is None:
            return None
        self.writing = True
        return Job(epoch=self._epoch, observation=observation, forced=None, previous=None, begun_s=now_s)

    def take_text(self, job: Job, text: Reasoning | None) -> bool:
        """Keep a text for the next inference; return whether it still counts. None: it could not be written."""
        self.writing = False
        stamp_s = job.observation.stamp_s
        if self.is_stale(job) or stamp_s <= self._reasoned_s:
            return False
        # A text that fails is tried again when its time has passed once more.
        self._reasoned_s, self._overtaken = stamp_s, False
        if text is None:
            self.counts.failures += 1
            return False
        self._written, self._read = text, job.observation
        return True

    def abandon_text(self) -> None:
        """Forget a text that will not come."""
        self.writing = False

    def finish(self, outcome: Outcome, now_s: float) -> Inference | None:
        """Return what to publish at `now_s`: the outcome with its chunk cut and joined; None for nothing."""
        self._busy = False
        self._follow_clock(now_s)
        job, inference = outcome.job, outcome.inference
        if self.is_stale(job):
            self.counts.dropped_stale += 1
            return None
        if inference is None:
            self.counts.failures += 1
            return None
        delay_s = now_s + self.settings.lead_s - job.observation.stamp_s
        committed_s = job.settings.commit_s if job.settings is not None else 0.0
        if job.previous is not None and delay_s > committed_s:
            self.counts.beyond_commit += 1
        (self._writing_delay if job.writes else self._delay).add(delay_s)
        if inference.reasoning.stamp_s == job.observation.stamp_s and _is_new(inference, job):
            self._reasoned_s = job.observation.stamp_s
            self._read = job.observation
        playing, measured = self._followed_plan(now_s), self.sync.positions()
        ready_s = now_s + self.settings.lead_s
        rested = playing is None and self._rested_at(job.observation.joint_positions, measured)
        chunk = joined_chunk(
            begun_later(inference.chunk, ready_s) if rested else inference.chunk,
            ready_s=ready_s,
            spec=self.spec,
            playing=playing,
            measured=measured,
            blend_s=self.settings.blend_s,
        )
        if chunk is None:
            self.counts.dropped_late += 1
            return None
        self._seam = chunk, playing, measured
        self.counts.chunks += 1
        return replace(inference, chunk=chunk)

    def is_stale(self, job: Job) -> bool:
        """Return whether `job` is for an instruction or override that is over."""
        return job.epoch != self._epoch or self._following is None

    def settle(self) -> None:
        """Do what may wait until after publishing."""
        self.playing  # noqa: B018
        if self._read is not None:
            self._scene.remember(self._read.images, self._read.joint_positions)
            self._read = None

    def abandon(self) -> None:
        """Forget an inference whose outcome will not come."""
        self._busy = False

    def _follow_clock(self, now_s: float) -> None:
        """Begin the instruction anew, with no plan, when the clock was set back: times from before lie ahead."""
        before_s, self._now_s = self._now_s, now_s
        if now_s < before_s - _CLOCK_JUMP_S:
            self._playing = self._seam = None
            if self._following is not None:
                self._following.since_s = None
            self._new_epoch()

    def _new_epoch(self) -> None:
        """Make running inferences stale and the next one due at once."""
        self._epoch += 1
        self._due_s = -np.inf
        self._last_stamp_s = -np.inf
        self._reasoned_s = -np.inf
        self._read = self._written = None
        self._overtaken = False
        self._scene.forget()

    def _followed_plan(self, now_s: float) -> ActionChunk | None:
        """Return the chunk being played; None when it is over or the robot is not where it would be by it."""
        playing, measured = self.playing, self.sync.positions()
        if playing is None or now_s >= playing.valid_until_s:
            return None
        if measured is None or playing.mode is not ActionMode.JOINT_POSITION:
            return playing
        return None if (np.abs(plan_at(playing, now_s) - measured) > self._allowed).any() else playing

    def _rested_at(self, seen: Any, measured: Any) -> bool:
        """Return whether the arms are still where the observation saw them."""
        return measured is not None and bool((np.abs(measured - seen)[self.spec.rotary] <= _RESTING_RAD).all())

    def _writes(self, stamp_s: float, *, fresh: bool) -> bool:
        """Return whether the next inference is likely to write a text, of a policy that mostly keeps one."""
        if not self._mostly_keeps_text() or (self.forced is not None and not self.thinks_about(self.forced)):
            return False
        return fresh or (not self._writes_apart() and stamp_s - self._reasoned_s >= self.tuning.reason_every_s)

    def _writes_apart(self) -> bool:
        """Return whether the next text comes apart from chunks; an instruction's first comes with its first chunk."""
        if not self.texts_apart or self.forced is not None:
            return False
        return self._mostly_keeps_text() and bool(np.isfinite(self._reasoned_s))

    def _mostly_keeps_text(self) -> bool:
        """Return whether inferences are of two kinds, with a text of their own and without."""
        reuse = getattr(self.tuning, "reuse", None)
        return reuse is not None and reuse.value == "refresh"

    def _keeps_text(self) -> bool:
        """Return whether the policy would keep its text, so that it matters whether the scene has changed."""
        reuse = getattr(self.tuning, "reuse", None)
        return self.forced is None and (reuse is None or reuse.value != "never")

    def _scene_changed(self, seen: Observation, stamp_s: float) -> bool:
        if stamp_s - self._reasoned_s < _SCENE_REST_S:
            return False
        self.settle()
        return self._scene.changed_share(seen.images, seen.joint_positions) > self.settings.scene_change


def _is_new(inference: Inference, job: Job) -> bool:
    """Return whether the text is new: neither kept from before nor given by a person."""
    source = inference.reasoning.source
    return source.name in ("GENERATED", "SCRIPTED") or (job.writes and source is ReasoningSource.FORCED)
