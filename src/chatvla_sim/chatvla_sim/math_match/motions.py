# SPDX-License-Identifier: Apache-2.0
"""Plan the expert's motions: go home, pick a card, place the held card in the slot. No simulator, no ROS.

Units rad, m, s. Tool frame: x out of the gripper, y across the fingers. D joints in RobotSpec order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatvla_control.kinematics import IkError, pose_matrix
from chatvla_control.robot_spec import ArmSpec, RobotSpec, robot_spec
from chatvla_sim.arms.x5 import arm_chain
from chatvla_sim.benches import bench_robot
from chatvla_sim.math_match.geometry import ARM_BASES, CARD_SIZE_M, goal_pose
from chatvla_sim.trajectory import MotionBuilder, Trajectory

__all__ = ["GRIPS", "ArmMotions", "Grip", "Plan", "tool_points"]

Array = NDArray[np.float64]
GRASP_ABOVE_M = 0.014
"""Tool point above the card's centre when gripping."""
ABOVE_M = 0.075
"""Height of the stop above a card before and after gripping."""
OPEN_M = 0.080
CLOSED_M = CARD_SIZE_M[0] - 0.016
"""Commanded opening on a card: 16 mm of servo spring give the grip."""
RELEASE_CLEARANCE_M = (0.024, 0.005)
"""Up the slope and off the board when the card is let go: it slides to the lip, and a learner's 5 mm do no harm."""
APPROACH_M = 0.055
RETREAT_M = 0.07
SPEED_SHARE, ACCELERATION_SHARE = 0.45, 0.4
SETTLE_S, CLOSE_S, RELEASE_S = 0.15, 0.25, 0.15
LINE_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class Grip:
    """How to take a card: always across its width; a card that lies askew may need another way in."""

    upright: float = 0.0
    """0: the gripper comes along the card's normal, 1: from straight above."""
    flipped: bool = False
    """Hand turned by half a turn."""
    along_m: float = 0.0
    """Shift of the grip to the top of the digits."""


GRIPS = tuple(
    Grip(upright=upright, flipped=flipped, along_m=along_m)
    for along_m in (0.0, -0.018, 0.018)
    for flipped in (False, True)
    for upright in (0.0, 0.5, 1.0)
)
"""Ways to take a card, the best first."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A motion with the times that matter for judging how it goes."""

    kind: str
    """"home", "pick", "place" (into the slot) or "lay" (on the table)."""
    trajectory: Trajectory
    arm: str
    card: str
    card_pose: Array | None
    """Where the card was when the plan was made, (4, 4)."""
    grip_s: float
    """pick: from when on the card must be held. place, lay: until when it must be held."""


def tool_on_card(card_pose: Array, above_m: float, grip: Grip | None = None) -> Array:
    """Return base_from_tool that grips a card at `card_pose`, the tool point `above_m` back from its centre."""
    grip = grip or Grip()
    across, normal = card_pose[:3, 0], card_pose[:3, 2]
    # Straight down, but at right angles to the faces that the pads press on.
    down = np.array([0.0, 0.0, -1.0]) + across * across[2]
    length = float(np.linalg.norm(down))
    approach = -normal if length < 0.3 else (1 - grip.upright) * -normal + grip.upright * down / length
    approach = approach / np.linalg.norm(approach)
    side = -across if not grip.flipped else across
    rotation = np.column_stack([approach, side, np.cross(approach, side)])
    centre = card_pose[:3, 3] + card_pose[:3, 1] * grip.along_m
    return pose_matrix(rotation, centre - approach * above_m)


class ArmMotions:
    """Plans for every arm of one robot."""

    def __init__(self, spec: RobotSpec) -> None:
        """The robot's arms must be those of the math bench."""
        self._spec = spec
        self._home = np.array(spec.home)
        self._chains = {arm.name: arm_chain(spec, arm, ARM_BASES[arm.name]) for arm in spec.arms}
        self._joints = {arm.name: [spec.joint_names.index(j) for j in arm.joints] for arm in spec.arms}
        self._grippers = {arm.name: spec.joint_names.index(arm.gripper) for arm in spec.arms}

    def arms_by_distance(self, point: Array) -> list[ArmSpec]:
        """Return the arms, the one whose base is nearest to `point` first."""
        return sorted(self._spec.arms, key=lambda arm: float(np.linalg.norm(np.array(ARM_BASES[arm.name]) - point)))

    def tool_pose(self, arm: str, positions: Array) -> Array:
        """Return base_from_tool (4, 4) of `arm` at joint positions (D,)."""
        return self._chains[arm].forward(positions[self._joints[arm]])

    def at_home(self, positions: Array) -> bool:
        """Return whether all arms (not grippers) are within 0.06 rad of home."""
        joints = [j for indices in self._joints.values() for j in indices]
        return bool(np.abs(positions[joints] - self._home[joints]).max() < 0.06)

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
        """Let go, rise, and bring all arms home."""
        builder = self._builder(start_s, positions, speed)
        self._clear(builder)
        builder.move(self._home)
        return Plan(kind="home", trajectory=builder.build(), arm="", card="", card_pose=None, grip_s=builder.time_s)

    def pick(
        self, start_s: float, positions: Array, speed: Array, *, arm: str, card: str, card_pose: Array, grip: Grip
    ) -> Plan:
        """Clear all arms, then grip `card` with `arm` and lift it. Raises IkError when it is out of reach."""
        builder = self._builder(start_s, positions, speed)
        above = self.solve(arm, tool_on_card(card_pose, GRASP_ABOVE_M + ABOVE_M, grip), self._home)
        path = self._line(arm, above, tool_on_card(card_pose, GRASP_ABOVE_M, grip))
        self._clear(builder, keep=arm)
        ready = self._home.copy()
        ready[self._joints[arm]] = above
        ready[self._grippers[arm]] = OPEN_M
        builder.move(ready)
        self._follow(builder, arm, path)
        builder.hold(SETTLE_S)
        self._grip(builder, arm, CLOSED_M, CLOSE_S)
        held_s = builder.time_s
        up = card_pose.copy()
        up[2, 3] += ABOVE_M
        lifted = self._line(arm, path[-1], tool_on_card(up, GRASP_ABOVE_M, grip))
        self._follow(builder, arm, lifted)
        return Plan(kind="pick", trajectory=builder.build(), arm=arm, card=card, card_pose=card_pose, grip_s=held_s)

    def place(
        self,
        start_s: float,
        positions: Array,
        speed: Array,
        *,
        arm: str,
        card: str,
        card_from_tool: Array,
        low: bool,
        spot: Array | None = None,
    ) -> Plan:
        """Put the held `card` into the slot, or flat on the table at pose `spot`; let go, retreat, go home.

        `low`: lift it first. Raises IkError when the way it is held does not allow it.
        """
        builder = self._builder(start_s, positions, speed)
        release = goal_pose() if spot is None else spot.copy()
        slope, out = RELEASE_CLEARANCE_M
        release[:3, 3] += release[:3, 1] * (slope if spot is None else 0.0) + release[:3, 2] * out
        before = release.copy()
        before[:3, 3] += release[:3, 2] * APPROACH_M
        joints = self._joints[arm]
        if low:
            builder.hold(0.0)
            tool = self.tool_pose(arm, builder.position)
            tool[2, 3] += ABOVE_M
            self._follow(builder, arm, self._line(arm, builder.position[joints], tool))
        over = self.solve(arm, before @ card_from_tool, builder.position)
        path = self._line(arm, over, release @ card_from_tool)
        ready = builder.position
        ready[joints] = over
        ready[self._grippers[arm]] = CLOSED_M
        builder.move(ready)
        self._follow(builder, arm, path)
        builder.hold(SETTLE_S)
        until_s = builder.time_s
        self._grip(builder, arm, OPEN_M, RELEASE_S)
        tool = release @ card_from_tool
        tool[:3, 3] -= tool[:3, 0] * RETREAT_M
        self._follow(builder, arm, self._line(arm, path[-1], tool))
        builder.move(self._home)
        kind = "place" if spot is None else "lay"
        return Plan(kind=kind, trajectory=builder.build(), arm=arm, card=card, card_pose=None, grip_s=until_s)

    def _clear(self, builder: MotionBuilder, keep: str = "") -> None:
        """Open the grippers, back arms that are low or at the board out of there, and send all but `keep` home."""
        builder.hold(0.0)
        away = [a.name for a in self._spec.arms if not self._arm_home(a.name, builder.position)]
        opened = builder.position
        for arm in away:
            opened[self._grippers[arm]] = OPEN_M
        if np.abs(opened - builder.position).max() > 0.005:
            builder.move(opened)
        for arm in away:
            tool = self.tool_pose(arm, builder.position)
            if tool[2, 3] < 0.12:
                tool[:3, 3] += np.array([-0.02, 0, max(0.0, 0.12 - tool[2, 3])])
                try:
                    path = self._line(arm, builder.position[self._joints[arm]], tool)
                except IkError:
                    continue  # An odd pose at the edge of reach: leave it joint by joint.
                self._follow(builder, arm, path)
        resting = builder.position
        for arm in away:
            if arm != keep:
                resting[self._joints[arm]] = self._home[self._joints[arm]]
                resting[self._grippers[arm]] = self._home[self._grippers[arm]]
        if np.abs(resting - builder.position).max() > 1e-6:
            builder.move(resting)

    def _arm_home(self, arm: str, positions: Array) -> bool:
        joints = self._joints[arm]
        return bool(np.abs(positions[joints] - self._home[joints]).max() < 0.06)

    def solve(self, arm: str, tool: Array, positions: Array) -> Array:
        """Return joint positions [rad] of `arm` that bring its tool to pose `tool`. Raises IkError out of reach."""
        start = positions[self._joints[arm]].copy()
        base = np.array(ARM_BASES[arm])
        start[0] = np.arctan2(tool[1, 3] - base[1], tool[0, 3] - base[0])
        try:
            return self._chains[arm].inverse(tool, start)
        except IkError:
            return self._chains[arm].inverse(tool, self._home[self._joints[arm]])

    def _line(self, arm: str, start: Array, tool: Array) -> Array:
        """Return joint positions of `arm` along a straight line of the tool, from `start` to pose `tool`."""
        chain = self._chains[arm]
        first = chain.forward(start)
        rows = [start]
        end = chain.inverse(tool, start)
        for share in np.linspace(0, 1, LINE_STEPS + 1)[1:]:
            pose = tool.copy()
            pose[:3, 3] = (1 - share) * first[:3, 3] + share * tool[:3, 3]
            # Joint-space guess keeps the rotation's way between both ends; the position is made exact.
            guess = (1 - share) * start + share * end
            pose[:3, :3] = chain.forward(guess)[:3, :3] if share < 1 else tool[:3, :3]
            rows.append(chain.inverse(pose, guess))
        return np.array(rows)

    def _follow(self, builder: MotionBuilder, arm: str, path: Array) -> None:
        rows = np.repeat(builder.position[None], len(path), axis=0)
        rows[:, self._joints[arm]] = path
        builder.follow(rows)

    def _grip(self, builder: MotionBuilder, arm: str, opening_m: float, least_s: float) -> None:
        target = builder.position
        target[self._grippers[arm]] = opening_m
        builder.move(target, least_s=least_s)


def tool_points() -> Callable[[Array], Array]:
    """Return the function from joint positions (D,) of the bench's robot to its tool points (arms, 3)."""
    spec = robot_spec(bench_robot("math_match"))
    motions = ArmMotions(spec)
    return lambda joints: np.array([motions.tool_pose(arm.name, joints)[:3, 3] for arm in spec.arms])
