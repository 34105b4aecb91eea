# SPDX-License-Identifier: Apache-2.0
"""Run a bench in real time: one thread steps it by the wall clock, another renders. No ROS.

A picture costs many times a physics step, so it is drawn from a snapshot while the physics goes on; MuJoCo frees
Python's lock while it draws. Only a reset waits for the picture in work. Times in s.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chatvla_control.arm_port import JointState
from chatvla_control.scene import SceneTruth
from chatvla_sim.bench import Bench

__all__ = ["RealTimeBench"]

PERIOD_S = 0.01
"""Period of the joint states."""
TRUTH_EVERY = 5
"""The truth is looked at once in this many periods, and told at once when a card's state changed."""
TELL_EVERY = 10
"""It is told at least once in this many periods."""
MOST_BEHIND_S = 0.2
"""The simulation catches up at most this much; what is lost beyond shows in the real-time factor."""
RATE_WINDOW_S = 1.0


class RealTimeBench:
    """Steps and renders one bench in threads of its own; results go to callbacks, which run in those threads."""

    def __init__(
        self,
        bench: Bench,
        *,
        clock: Callable[[], float],
        on_joints: Callable[[JointState], None],
        on_truth: Callable[[SceneTruth, float], None],
        on_image: Callable[[str, NDArray[np.uint8], float], None],
        on_error: Callable[[BaseException], None],
        camera_rate_hz: float = 30.0,
        show: Callable[[], None] | None = None,
    ) -> None:
        """`clock` stamps what goes out. `on_truth` gets truth and stamp, `on_image` view, RGB image and stamp.

        `show` refreshes a viewer, at the camera's rate.
        """
        self._bench = bench
        self._clock = clock
        self._on_joints, self._on_truth, self._on_image, self._on_error = on_joints, on_truth, on_image, on_error
        self._show = show
        self._frame_period_s = 1.0 / camera_rate_hz
        self._physics = threading.Lock()
        self._drawing = threading.Lock()
        self._frame = threading.Condition()
        self._snapshot: tuple[NDArray[np.float64], float] | None = None
        self._stop = threading.Event()
        self._tell = threading.Event()
        self._factor = 1.0
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), name=name, daemon=True)
            for name, run in (("physics", self._run_physics), ("camera", self._run_camera))
        ]

    @property
    def real_time_factor(self) -> float:
        """Simulated seconds per wall-clock second over the last second."""
        return self._factor

    def start(self) -> None:
        """Start both threads. The bench must have a scene."""
        for thread in self._threads:
            thread.start()

    def command(self, positions: NDArray[np.float64]) -> None:
        """Set the servos' targets [rad, m], shape (D,)."""
        with self._physics:
            self._bench.command(positions)

    def reset(self, *, split: str, seed: int, swap: bool, fonts: Sequence[Path | str] | None = None) -> SceneTruth:
        """Build a new scene and return its truth; see Bench.reset."""
        with self._drawing, self._physics:
            truth = self._bench.reset(split=split, seed=seed, swap=swap, equation_fonts=fonts)
            with self._frame:
                self._snapshot = None
        self._tell.set()
        return truth

    def close(self) -> None:
        """Stop both threads and free the bench."""
        self._stop.set()
        with self._frame:
            self._frame.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=2.0)
        self._bench.close()

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            if not self._stop.is_set():
                self._on_error(error)

    def _run_physics(self) -> None:
        begun = time.monotonic()
        origin = self._bench.time_s
        history: deque[tuple[float, float]] = deque([(begun, origin)])
        next_frame = begun
        tick, last_marks = 0, None
        while not self._stop.is_set():
            now = time.monotonic()
            with self._physics:
                behind = (now - begun) - (self._bench.time_s - origin)
                if behind > MOST_BEHIND_S:
                    begun += behind - MOST_BEHIND_S
                self._bench.step(min(behind, MOST_BEHIND_S))
                joints = self._bench.joint_state()
                truth = self._bench.truth() if tick % TRUTH_EVERY == 0 or self._tell.is_set() else None
                if now >= next_frame:
                    next_frame = max(next_frame, now - self._frame_period_s) + self._frame_period_s
                    if self._show is not None:
                        self._show()
                    with self._frame:
                        self._snapshot = (self._bench.snapshot(), self._clock())
                        self._frame.notify_all()
                simulated = self._bench.time_s
            stamp = self._clock()
            self._on_joints(stamped(joints, stamp))
            history.append((now, simulated))
            while now - history[0][0] > RATE_WINDOW_S:
                history.popleft()
            if now - history[0][0] > 0.1:
                self._factor = (simulated - history[0][1]) / (now - history[0][0])
            if truth is not None:
                marks = (truth.trial, truth.success, tuple((item.held, item.placed) for item in truth.objects))
                if marks != last_marks or tick % TELL_EVERY == 0:
                    self._tell.clear()
                    self._on_truth(truth, stamp)
                    last_marks = marks
            tick += 1
            self._stop.wait(max(0.0, next_tick(now, PERIOD_S) - time.monotonic()))

    def _run_camera(self) -> None:
        try:
            while not self._stop.is_set():
                with self._frame:
                    while self._snapshot is None and not self._stop.is_set():
                        self._frame.wait(0.5)
                    moment, self._snapshot = self._snapshot, None
                if moment is None:
                    return
                for view in self._bench.views:
                    with self._drawing:
                        image = self._bench.render(view, moment[0])
                    self._on_image(view, image, moment[1])
        finally:
            self._bench.close_renderer()


def next_tick(now: float, period_s: float) -> float:
    """Return the next multiple of the period after `now`."""
    return (np.floor(now / period_s) + 1) * period_s


def stamped(state: JointState, stamp_s: float) -> JointState:
    """Return the state with another stamp."""
    return JointState(positions=state.positions, velocities=state.velocities, efforts=state.efforts, stamp_s=stamp_s)
