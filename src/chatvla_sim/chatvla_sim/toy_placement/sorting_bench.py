# SPDX-License-Identifier: Apache-2.0
"""The toy bench with the task "sort the toys": four steps, one point each. MuJoCo physics, cameras and truth. No ROS.

A step is done when its toy rests on the table on its own side (sorting_trial.ZONE_Y_M), slower than STILL_M_S and
touched by no pad. The score is the length of the successful beginning (ChatVLA-1, "Avg. Len."): a toy that comes to
rest on the wrong side ends the counting, what is put right later counts no more. The bench keeps count at every truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chatvla_control.kinematics import pose_matrix
from chatvla_control.scene import SceneObject, SceneTruth
from chatvla_sim.bench import BenchError
from chatvla_sim.camera import box_corners
from chatvla_sim.toy_placement.bench import ToyPlacementBench
from chatvla_sim.toy_placement.judge import GOAL, STILL_M_S, ThingState, labelled_box, to_pose
from chatvla_sim.toy_placement.kinds import KINDS
from chatvla_sim.toy_placement.objects import kind_of
from chatvla_sim.toy_placement.relations import REST_M
from chatvla_sim.toy_placement.sorting_trial import ZONE_Y_M, draw_sorting_trial, side_of, slot
from chatvla_sim.toy_placement.trial import Trial

__all__ = ["ToySortingBench"]


class ToySortingBench(ToyPlacementBench):
    """One Panda, two animals and two blocks."""

    name = "toy_sorting"

    def reset(
        self, *, split: str, seed: int, swap: bool = False, equation_fonts: Sequence[Path | str] | None = None
    ) -> SceneTruth:
        """Build the scene of one trial; see Bench.reset. There is no writing: `equation_fonts` changes nothing."""
        try:
            trial = draw_sorting_trial(split=split, seed=seed, swap=swap)
        except ValueError as error:
            raise BenchError(str(error)) from error
        return self.show(trial)

    def show(self, trial: Trial, joints: NDArray[np.float64] | None = None) -> SceneTruth:
        """Build the scene of a given trial, with nothing sorted; see ToyPlacementBench.show."""
        self._done: list[str] = []
        self._spoiled = False
        return super().show(trial, joints)

    def truth(self) -> SceneTruth:
        """Return the truth now: `target`, `answer` and `goal` are those of the next step, done steps are `placed`."""
        plain = super().truth()
        states = self._states()
        sides = [side_now(thing.label, state) for thing, state in zip(self.trial.things, states, strict=True)]
        for index, (thing, side) in enumerate(zip(self.trial.things, sides, strict=True)):
            self._spoiled |= side not in ("", side_of(thing.label))
            if side == side_of(thing.label) and not self._spoiled and f"thing_{index}" not in self._done:
                self._done.append(f"thing_{index}")
        open_steps = [
            k for k, (t, side) in enumerate(zip(self.trial.things, sides, strict=True)) if side != side_of(t.label)
        ]
        step = open_steps[0] if open_steps else len(states) - 1
        solved = not self._spoiled and not open_steps
        thing = self.trial.things[step]
        size = KINDS[kind_of(thing.label)].size
        goal = pose_matrix(np.eye(3), np.array([*slot(self.trial, step), size[2] / 2]))
        toys = tuple(
            replace(item, role="target" if index == step else "distractor", placed=item.name in self._done)
            for index, item in enumerate(plain.objects[: len(states)])
        )
        fixture = SceneObject(
            name=GOAL,
            label=GOAL,
            role="fixture",
            place="",
            pose=to_pose(goal),
            size=size,
            held=False,
            placed=False,
            box=labelled_box(self._camera, box_corners(goal, size), GOAL, "right"),
        )
        return replace(
            plain,
            task=self.name,
            answer=side_of(thing.label),
            target=f"thing_{step}",
            goal=fixture.pose,
            objects=(*toys, fixture),
            placed=f"thing_{step}" if solved else "",
            success=solved,
        )


def side_now(label: str, state: ThingState) -> str:
    """Return the side on which a toy rests, empty in the middle, above the table, in motion or in the gripper."""
    bottom = float(box_corners(state.pose, KINDS[kind_of(label)].size)[:, 2].min())
    y = float(state.pose[1, 3])
    if state.touched or state.speed_m_s >= STILL_M_S or abs(bottom) > REST_M or abs(y) < ZONE_Y_M:
        return ""
    return "left" if y > 0 else "right"
