# SPDX-License-Identifier: Apache-2.0
"""Plan the expert's motions: go home, pick a toy, place the held toy. No simulator, no ROS.

The gripper always points straight down.
Units rad, m, s. Tool frame: x out of the gripper, y across the fingers. D joints in RobotSpec order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.kinematics import IkError, pose_matrix
from chatvla_control.robot_spec import RobotSpec, robot_spec
from chatvla_sim.arms.panda import HELD_JOINT, elbow_up_chain, panda_chain
from chatvla_sim.benches import bench_robot
from chatvla_sim.trajectory import MotionBuilder, Trajectory

__all__ = ["GRIPS", "Grip", "Plan", "ToyMotions", "tool_points"]

Array = NDArray[np.float64]
LIFT_M = 0.15
"""How far a toy is lifted: above everything that stands on the table."""
ABOVE_M = 0.10
"""Height of the stop above a toy."""
RETREAT_M = 0.10
OPEN_M = 0.080
SQUEEZE_M = 0.016
"""Commanded opening below the toy's width: what the servo's spring turns into grip."""
SPREAD_M = 0.028
"""How much wider than the toy the gripper opens to let go: its fingers stay clear of what stands beside."""
DROP_M = 0.003
SPEED_SHARE, ACCELERATION_SHARE = 0.55, 0.6
SETTLE_S, CLOSE_S, RELEASE_S = 0.15, 0.35, 0.2
LINE_STEPS = 6


@dataclass(frozen=True, kw_only=True)
class Grip:
    """How to take a toy: shift of the grip along the toy's length and up [m]."""

    along_m: float = 0.0
    up_m: float = 0.0


GRIPS = (Grip(), Grip(along_m=-0.012), Grip(along_m=0.012), Grip(up_m=-0.004))
"""Ways to take a toy, the best first."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A motion with the times that matter for judging how it goes."""

    kind: str
    """"home", "pick" or "place"."""
    trajectory: Trajectory
    toy_pose: Array | None
    """pick: where the toy was when the plan was made; place: where it shall be; (4, 4)."""
    grip_s: float
    """pick: from when on the toy must be held. place: until when it must be held."""


def grip_rotation(across: Array) -> Array:
    """Return the base_from_tool rotation of a gripper that points down with its fingers along `across`."""
    down = np.array([0.0, 0.0, -1.0])
    return np.column_stack([down, across, np.cross(down, across)])


class ToyMotions:
    """Plans for the arm of the toy bench."""

    def __init__(self, spec: RobotSpec) -> None:
        """The robot must have one arm, of the toy bench's kind."""
        self._spec = spec
        (self._arm,) = spec.arms
        self._home = np.array(spec.home)
        self._chain = panda_chain(spec)
        # The arm has a joint to spare: without a rule, lines would wander and poses have many answers.
        self._solver = elbow_up_chain(spec)
        self._joints = [spec.joint_names.index(name) for name in self._arm.joints]
        self._gripper = spec.joint_names.index(self._arm.gripper)

    def tool_pose(self, positions: Array) -> Array:
        """Return base_from_tool (4, 4) at joint positions (D,)."""
        return self._chain.forward(positions[self._joints])

    def over(self, point: Array, across: Array, opening_m: float) -> Array:
        """Return joint positions (D,) whose tool is at `point` (3,), fingers along the horizontal unit vector `across`.

        Raises IkError when it is out of reach.
        """
        positions = self._home.copy()
        positions[self._joints] = self._solve(pose_matrix(grip_rotation(across), point))
        positions[self._gripper] = opening_m
        return positions

    def _builder(self, start_s: float, positions: Array, speed: Array) -> MotionBuilder:
        return MotionBuilder(
            start_s=start_s,
            period_s=1.0 / self._spec.rate_hz,
            positions=positions,
            speed=speed,
            max_speed=self._spec.velocity * SPEED_SHARE,
            max_acceleration=self._spec.acceleration * ACCELERATION_SHARE,
        )

    def home(self, start_s: float, positions: Array, speed: Array) -> Plan:
        """Let go, rise, and go home."""
        builder = self._builder(start_s, positions, speed)
        self._clear(builder)
        builder.move(self._home)
        return Plan(kind="home", trajectory=builder.build(), toy_pose=None, grip_s=builder.time_s)

    def pick(
        self,
        start_s: float,
        positions: Array,
        speed: Array,
        *,
        toy: Array,
        grip_m: float,
        grip_z_m: float,
        grip: Grip,
    ) -> Plan:
        """Grip the toy at pose `toy`, `grip_m` wide, at height `grip_z_m` above the table, and lift it.

        Raises IkError when it is out of reach.
        """
        builder = self._builder(start_s, positions, speed)
        length, across = grip_axes(toy)
        point = np.array([*(toy[:2, 3] + length[:2] * grip.along_m), grip_z_m + grip.up_m])
        tool = pose_matrix(grip_rotation(across), point)
        above = self._solve(raised(tool, ABOVE_M))
        path = self._line(above, tool)
        self._clear(builder)
        ready = self._home.copy()
        ready[self._joints] = above
        ready[self._gripper] = OPEN_M
        builder.move(ready)
        self._follow(builder, path)
        builder.hold(SETTLE_S)
        self._grip(builder, max(0.0, grip_m - SQUEEZE_M), CLOSE_S)
        held_s = builder.time_s
        self._follow(builder, self._line(path[-1], raised(tool, LIFT_M)))
        return Plan(kind="pick", trajectory=builder.build(), toy_pose=toy, grip_s=held_s)

    def place(
        self,
        start_s: float,
        positions: Array,
        speed: Array,
        *,
        goal: Array,
        toy_from_tool: Array,
        grip_m: float,
        low: bool,
    ) -> Plan:
        """Put the held toy at pose `goal`; let go, retreat, go home. `low`: lift it first.

        Raises IkError when the way it is held does not allow it.
        """
        builder = self._builder(start_s, positions, speed)
        closed = max(0.0, grip_m - SQUEEZE_M)
        if low:
            builder.hold(0.0)
            lifted = raised(self.tool_pose(builder.position), LIFT_M)
            self._follow(builder, self._line(builder.position[self._joints], lifted))
        release = goal @ toy_from_tool
        release[2, 3] += DROP_M
        # As high as it was lifted: on its way the toy may pass over the reference.
        above = self._solve(raised(release, LIFT_M))
        path = self._line(above, release)
        ready = builder.position
        ready[self._joints], ready[self._gripper] = above, closed
        builder.move(ready)
        self._follow(builder, path)
        builder.hold(SETTLE_S)
        until_s = builder.time_s
        self._grip(builder, min(OPEN_M, grip_m + SPREAD_M), RELEASE_S)
        self._follow(builder, self._line(path[-1], raised(release, RETREAT_M)))
        builder.move(self._home)
        return Plan(kind="place", trajectory=builder.build(), toy_pose=goal, grip_s=until_s)

    def _clear(self, builder: MotionBuilder) -> None:
        """Open the gripper and rise, unless the arm is at home."""
        builder.hold(0.0)
        here = builder.position
        if np.abs(here[self._joints] - self._home[self._joints]).max() < 0.06:
            return
        if here[self._gripper] < OPEN_M - 0.005:
            self._grip(builder, OPEN_M, RELEASE_S)
        tool = self.tool_pose(builder.position)
        if tool[2, 3] < LIFT_M:
            up = tool.copy()
            up[2, 3] = LIFT_M + 0.02
            try:
                self._follow(builder, self._line(builder.position[self._joints], up))
            except IkError:
                return  # An odd pose at the edge of reach: leave it joint by joint.

    def _solve(self, tool: Array) -> Array:
        """Return arm positions for a tool pose, always from the same start: one pose, one answer."""
        start = self._home[self._joints].copy()
        start[0] = np.arctan2(tool[1, 3], tool[0, 3])
        return self._inverse(tool, start, iterations=150)

    def _inverse(self, tool: Array, start: Array, iterations: int = 50) -> Array:
        """Return arm positions for a tool pose near `start`, the elbow straight above."""
        found = self._solver.inverse(tool, np.delete(start, HELD_JOINT), iterations=iterations)
        return np.insert(found, HELD_JOINT, 0.0)

    def _line(self, start: Array, tool: Array) -> Array:
        """Return arm positions along a straight line of the tool, from `start` to pose `tool`; both turned alike."""
        first = self._chain.forward(start)
        rows, end = [start], self._inverse(tool, start)
        for share in np.linspace(0, 1, LINE_STEPS + 1)[1:]:
            pose = tool.copy()
            pose[:3, 3] = (1 - share) * first[:3, 3] + share * tool[:3, 3]
            rows.append(self._inverse(pose, (1 - share) * start + share * end))
        return np.array(rows)

    def _follow(self, builder: MotionBuilder, path: Array) -> None:
        rows = np.repeat(builder.position[None], len(path), axis=0)
        rows[:, self._joints] = path
        builder.follow(rows)

    def _grip(self, builder: MotionBuilder, opening_m: float, least_s: float) -> None:
        target = builder.position
        target[self._gripper] = opening_m
        builder.move(target, least_s=least_s)


def raised(pose: Array, height_m: float) -> Array:
    """Return the pose moved up."""
    higher = pose.copy()
    higher[2, 3] += height_m
    return higher


def grip_axes(toy: Array) -> tuple[Array, Array]:
    """Return horizontal unit vectors along the toy, away from the robot, and across it, nearest to the home pose's."""
    across = toy[:3, 1] if abs(toy[2, 1]) < 0.7 else toy[:3, 2]
    across = across * [1.0, 1.0, 0.0] / np.linalg.norm(across[:2])
    across = -across if across[1] > 0 else across
    return np.array([-across[1], across[0], 0.0]), across


def tool_points() -> Callable[[Array], Array]:
    """Return the function from joint positions (D,) of the bench's robot to its tool point (1, 3)."""
    motions = ToyMotions(robot_spec(bench_robot("toy_placement")))
    return lambda joints: motions.tool_pose(joints)[None, :3, 3]
