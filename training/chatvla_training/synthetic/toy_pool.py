# SPDX-License-Identifier: Apache-2.0
"""Keep rendered toy scenes on disk, with what is known of them: the bench draws one in 70 ms, training shows it often.

A scene is a function of (seed, kind, index). It is kept the first time it is asked for, in files whose name holds a
hash of the code that draws it; deleting them costs time, nothing else.
- `trials`: a table as in a trial: untouched, or with the toy in the gripper, as the expert holds it, or with the toy
  where it belongs.
- `crowds`: a table full of things, for dense labels.
The arm stands anywhere. Units m, rad; pixels of the 320x240 image.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatvla_control.kinematics import IkError
from chatvla_sim.toy_placement import kinds, layout, objects, relations, scene, trial, visibility
from chatvla_sim.toy_placement.kinds import KINDS
from chatvla_sim.toy_placement.layout import TOY_YAW
from chatvla_sim.toy_placement.objects import kind_of
from chatvla_sim.toy_placement.rack import tray_place
from chatvla_sim.toy_placement.relations import goal_position
from chatvla_sim.toy_placement.shapes import Kind
from chatvla_sim.toy_placement.trial import Trial
from chatvla_training.synthetic import toy_trials
from chatvla_training.synthetic.kept import kept_arrays
from chatvla_training.synthetic.toy_trials import MOST_THINGS, crowd_trial, image_text_toy_trial

__all__ = ["TOY_POOL_SIZES", "ToyPool", "ToyScene"]

Array = NDArray[np.float64]
TOY_POOL_SIZES = {"trials": 6_000, "crowds": 5_000}
"""Scenes of each kind."""
SHAPE = (240, 320, 3)
SEED_STRIDE = 1_000_000
STATES = {"untouched": 0.5, "held": 0.2, "placed": 0.3}
"""How often a trial's toy is where."""
ARM_AT_HOME = 0.4
_CODE = (kinds, layout, objects, relations, scene, trial, visibility, toy_trials, sys.modules[__name__])


@dataclass(frozen=True, kw_only=True)
class ToyScene:
    """One scene: picture (H, W, 3) uint8 RGB, what stands where, and what is seen where."""

    id: str
    image: NDArray[np.uint8]
    trial: Trial
    poses: NDArray[np.float64]
    """x, y, z of each thing's middle and its yaw [m, rad], shape (things, 4); all are upright."""
    seen: NDArray[np.uint8]
    """0, or 1 + the number of the thing seen there, one value per visibility.STEP_PX px, shape (60, 80)."""
    shift_px: tuple[int, int] = (0, 0)
    """How far the picture was moved right and down after it was drawn."""


class ToyPool:
    """Scenes of one kind and seed. Several processes may use the same folder."""

    def __init__(self, kind: str, seed: int, folder: Path | None) -> None:
        """`folder` None draws every time. Raises KeyError for a kind that does not exist."""
        self.kind, self.seed, self.size = kind, seed, TOY_POOL_SIZES[kind]
        self._folder = folder
        self._bench: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a process: open files and the renderer."""
        return {"kind": self.kind, "seed": self.seed, "size": self.size, "_folder": self._folder, "_bench": None}

    def scene(self, index: int) -> ToyScene:
        """Return scene `index`, 0 or more, below the pool's size."""
        number = self.seed * SEED_STRIDE + index
        drawn = crowd_trial(number) if self.kind == "crowds" else image_text_toy_trial(number)
        if self._folder is None:
            image, seen, poses = self._draw(drawn, index)
        else:
            images, maps, places, done = self._files
            if not done[index]:
                # The flag comes last: a killed process leaves a scene that is drawn again, to the same pixels.
                images[index], maps[index], places[index] = self._draw(drawn, index)
                done[index] = 1
            image, seen, poses = np.array(images[index]), np.array(maps[index]), places[index]
        return ToyScene(
            id=f"toys/{self.kind}/{self.seed}/{index}",
            image=image,
            trial=drawn,
            poses=np.array(poses[: len(drawn.things)], np.float64),
            seen=seen,
        )

    @cached_property
    def _files(self) -> tuple[NDArray[Any], ...]:
        assert self._folder is not None
        rows, columns = (side // visibility.STEP_PX for side in SHAPE[:2])
        layout_of_row = (
            ("image", np.uint8, SHAPE),
            ("seen", np.uint8, (rows, columns)),
            ("poses", np.float32, (MOST_THINGS, 4)),
            ("done", np.uint8, ()),
        )
        return kept_arrays(self._folder, f"toys-{self.kind}-{self.seed}-{self.sha256()[:12]}", self.size, layout_of_row)

    def _draw(self, drawn: Trial, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
        from chatvla_sim.toy_placement.bench import ToyPlacementBench

        if self._bench is None:
            self._bench = ToyPlacementBench()
        bench, rng = self._bench, np.random.default_rng([self.seed, index, 7403])
        state = "untouched"
        if self.kind == "trials":
            state = str(rng.choice(list(STATES), p=list(STATES.values())))
        turn = float(rng.uniform(*TOY_YAW))
        held = KINDS[kind_of(drawn.target.label)] if state == "held" else None
        joints, held_at = arm_anywhere(bench.spec, rng, turn, held)
        bench.show(drawn, joints)
        bodies = [bench.data.joint(f"thing_{number}") for number in range(len(drawn.things))]
        if state == "placed":
            bodies[0].qpos[:3] = goal_of(drawn, bodies[1].qpos)
        elif state == "held" and held_at is not None:
            bodies[0].qpos[:] = [*held_at, np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2)]
        image = bench.render("right")
        bench.truth()  # Brings the kinematics up to date, which the rays need.
        seen = visibility.seen_things(bench.model, bench.data, bench.camera("right"), len(drawn.things))
        poses = np.zeros((MOST_THINGS, 4), np.float32)
        for number, body in enumerate(bodies):
            poses[number] = (*body.qpos[:3], 2 * np.arctan2(body.qpos[6], body.qpos[3]))
        return image, seen, poses

    def sha256(self) -> str:
        """Return a fingerprint of the code and settings that draw the scenes."""
        parts = (self.kind, str(self.seed), str(self.size), str(STATES), *(inspect.getsource(m) for m in _CODE))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def goal_of(drawn: Trial, reference: Array) -> Array:
    """Return where the toy of a trial belongs, shape (3,), its reference standing at `reference` (x, y, z, ...)."""
    pose = np.eye(4)
    pose[:3, 3] = reference[:3]
    sizes = (KINDS[kind_of(thing.label)].size for thing in (drawn.reference, drawn.target))
    goal = goal_position(drawn.relation, pose, *sizes)
    if drawn.relation == "below" and drawn.rack is not None:
        goal[:2] = tray_place(drawn.rack)
    return goal


def arm_anywhere(spec: Any, rng: np.random.Generator, turn: float, held: Kind | None) -> tuple[Array, Array | None]:
    """Return joint positions [rad, m], shape (D,), and where the middle of a held toy is, shape (3,).

    Near home, or on the way to a place over the table, the gripper turned by `turn` [rad] as it takes a toy of that
    yaw. An arm that holds a toy of kind `held` is there, its fingers as far apart and as high as the expert takes it.
    """
    from chatvla_sim.toy_placement.motions import ToyMotions

    home = np.array(spec.home)
    near = np.clip(home + rng.normal(0, 0.03, len(home)), spec.lower, spec.upper)
    if held is None and rng.random() < ARM_AT_HOME:
        return near, None
    point = np.array([rng.uniform(0.36, 0.62), rng.uniform(-0.26, 0.26), rng.uniform(0.08, 0.28)])
    across = np.array([np.sin(turn), -np.cos(turn), 0.0])
    opening = float(rng.uniform(0.03, 0.08)) if held is None else held.grip_m
    try:
        there = ToyMotions(spec).over(point, across, opening)
    except IkError:
        return near, None
    if held is not None:
        return there, point + np.array([0.0, 0.0, held.size[2] / 2 - held.grip_z_m])
    share = float(rng.uniform(0.3, 1.0))
    return (1 - share) * near + share * there, None
