# SPDX-License-Identifier: Apache-2.0
"""Solve the math bench by script: read the truth, pick the right card with the nearer arm, place it, go home.

Reactive: each call looks at the truth and at the measured joints, keeps the plan while it fits, and makes a new one
when the card
was moved, missed or dropped. Successive chunks are windows of one smooth motion, so they join without a jump.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import (
    ActionChunk,
    ActionMode,
    BoundingBox,
    Inference,
    Observation,
    Reasoning,
    ReasoningSource,
)
from chatvla_control.kinematics import IkError, pose_matrix
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.scene import Pose, SceneObject, SceneTruth
from chatvla_sim.math_match.geometry import CARD_ROW_X_M, flat_card_pose
from chatvla_sim.math_match.motions import GRIPS, ArmMotions, Plan
from chatvla_sim.math_match.reasoning import find_place, reasoning_text

__all__ = ["MathMatchExpert"]

Array = NDArray[np.float64]
CHUNK_STEPS = 50
VALID_S = 1.5
"""How long after its start a chunk may be played."""
MOVED_M, MOVED_RAD = 0.008, 0.08
LOST_RAD = 0.25
"""Measured joints farther than this from the plan: something else moved the arm, plan anew from where it is."""
MISSED_S = 0.3
"""How long after closing the card may still be reported as not held."""
LOW_M = 0.06
"""A held card with its centre lower than this is lifted before it is carried."""
ROW_HALF_M, ROOM_M = 0.19, 0.1
STUCK_S = 1.0
"""When nothing can be done: time until it is tried again."""


def pose_of(pose: Pose) -> Array:
    """Return the homogeneous matrix (4, 4) of a Pose."""
    x, y, z, w = pose.quaternion
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return pose_matrix(rotation, np.array(pose.position))


class MathMatchExpert:
    """Policy `expert` of the task math_match."""

    name = "expert"
    privileged = True

    def __init__(self, spec: RobotSpec, truth: Callable[[], SceneTruth]) -> None:
        """`truth` returns the newest truth of the scene."""
        self._spec = spec
        self._truth = truth
        self._motions = ArmMotions(spec)
        self._count = self._runs = 0
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forget the last instruction. The expert draws nothing at random; `seed` is not used."""
        self._runs += 1
        self._plan: Plan | None = None
        self._attempts = 0
        """How often the card was missed in a row: each time another way to take it is tried first."""
        self._trial: tuple[int, str] | None = None

    def infer(
        self,
        observation: Observation,
        forced_reasoning: str | None = None,
        previous_chunk: ActionChunk | None = None,
    ) -> Inference:
        """Return reasoning and the next second of motion, starting at the observation's stamp."""
        begun = time.monotonic()
        truth = self._truth()
        card, text, source = self._think(truth, forced_reasoning)
        self._count += 1
        plan = self._keep_or_plan(observation, truth, card)
        done = card.placed and plan.trajectory.end_s <= observation.stamp_s and plan.kind != "pick"
        reasoning = Reasoning(
            id=f"expert-{self._runs}-{truth.trial}-{card.name}",
            text=text,
            stamp_s=observation.stamp_s,
            source=source,
            policy=self.name,
            privileged=True,
            instruction=observation.instruction,
            answer=truth.answer,
            boxes=self._boxes(truth),
            seconds=time.monotonic() - begun,
        )
        return Inference(reasoning=reasoning, chunk=self._chunk(plan, observation, reasoning), done=done)

    def ways(self, observation: Observation, reasoning: str) -> list[ActionChunk]:
        """Return the next second of every way to take the card that `reasoning` chooses: one for each arm that can.

        The nearer arm's comes first. What the expert is at does not change.
        """
        truth = self._truth()
        card, text, source = self._think(truth, reasoning)
        found = Reasoning(id="", text=text, stamp_s=observation.stamp_s, source=source, policy=self.name)
        at_rest = np.zeros_like(observation.joint_positions)
        state = (observation.stamp_s, observation.joint_positions.copy(), at_rest)
        chunks: list[ActionChunk] = []
        for arm in self._motions.arms_by_distance(np.array(card.pose.position)):
            for grip in GRIPS:
                with contextlib.suppress(IkError):
                    pose = pose_of(card.pose)
                    plan = self._motions.pick(*state, arm=arm.name, card=card.name, card_pose=pose, grip=grip)
                    chunks.append(self._chunk(plan, observation, found))
                    break
        return chunks

    def _think(self, truth: SceneTruth, forced: str | None) -> tuple[SceneObject, str, ReasoningSource]:
        """Return the card to pick, the text that says so, and the text's source."""
        cards = [item for item in truth.objects if item.role == "card"]
        own = next(item for item in cards if item.name == truth.target)
        if forced is None:
            return own, reasoning_text(truth, own), ReasoningSource.SCRIPTED
        place = find_place(forced, [item.place for item in cards])
        chosen = next((item for item in cards if item.place == place), None)
        if chosen is not None:
            return chosen, forced, ReasoningSource.FORCED
        note = "The given text names no card's place: I keep my own choice."
        return own, f"{reasoning_text(truth, own)} {note}", ReasoningSource.SCRIPTED

    def _boxes(self, truth: SceneTruth) -> tuple[BoundingBox, ...]:
        return tuple(item.box for item in truth.objects if item.role == "card" and item.box is not None)

    def _chunk(self, plan: Plan, observation: Observation, reasoning: Reasoning) -> ActionChunk:
        period = 1.0 / self._spec.rate_hz
        start = observation.stamp_s
        actions = plan.trajectory.sample(start + period * np.arange(CHUNK_STEPS))
        return ActionChunk(
            id=f"expert-{self._count}",
            actions=np.clip(actions, self._spec.lower, self._spec.upper),
            joint_names=self._spec.joint_names,
            robot=self._spec.name,
            mode=ActionMode.JOINT_POSITION,
            stamp_s=start,
            start_s=start,
            step_period_s=period,
            valid_until_s=start + VALID_S,
            policy=self.name,
            privileged=True,
            reasoning_id=reasoning.id,
            reasoning_source=reasoning.source,
        )

    def _keep_or_plan(self, observation: Observation, truth: SceneTruth, card: SceneObject) -> Plan:
        now, measured = observation.stamp_s, observation.joint_positions
        pose = pose_of(card.pose)
        trial = (truth.trial, card.name)
        plan = self._plan
        if plan is None or self._is_lost(plan, now, measured):
            state = (now, measured.copy(), np.zeros_like(measured))
        else:
            state = (now, plan.trajectory.sample(np.array([now]))[0], plan.trajectory.velocity(now))
            if trial == self._trial and self._fits(plan, now, card, pose):
                return plan
            missed = plan.kind == "pick" and now >= plan.grip_s and not card.held
            self._attempts = self._attempts + 1 if missed else 0
        self._trial = trial
        self._plan = self._next_plan(state, measured, truth, card, pose)
        return self._plan

    def _is_lost(self, plan: Plan, now: float, measured: Array) -> bool:
        planned = plan.trajectory.sample(np.array([now]))[0]
        rotary = np.array([joint.unit == "rad" for joint in self._spec.joints])
        return bool(np.abs(planned - measured)[rotary].max() > LOST_RAD)

    def _fits(self, plan: Plan, now: float, card: SceneObject, pose: Array) -> bool:
        """Return whether the plan still leads to the goal."""
        over = now >= plan.trajectory.end_s
        if plan.kind == "pick" and plan.card_pose is not None:
            if now < plan.grip_s:
                moved = np.linalg.norm(pose[:3, 3] - plan.card_pose[:3, 3]) > MOVED_M
                turned = np.arccos(np.clip(pose[:3, 0] @ plan.card_pose[:3, 0], -1, 1)) > MOVED_RAD
                # Closing fingers push the card a little: that is no reason to start again.
                return card.held or now > plan.grip_s - 0.3 or not (moved or turned)
            return not card.held and now < plan.grip_s + MISSED_S
        if plan.kind == "lay":
            return (now >= plan.grip_s or card.held) and not over
        if plan.kind == "place":
            return (now >= plan.grip_s or card.held) and (not over or card.placed)
        return card.placed or now < plan.trajectory.end_s + STUCK_S

    def _next_plan(
        self, state: tuple[float, Array, Array], measured: Array, truth: SceneTruth, card: SceneObject, pose: Array
    ) -> Plan:
        if card.placed:
            return self._motions.home(*state)
        if card.held:
            arm = min(
                (a.name for a in self._spec.arms),
                key=lambda name: np.linalg.norm(self._motions.tool_pose(name, measured)[:3, 3] - pose[:3, 3]),
            )
            card_from_tool = np.linalg.inv(pose) @ self._motions.tool_pose(arm, measured)
            # Held in a way that does not fit the slot: lay it down flat and take it again.
            for spot in (None, self._free_spot(truth, card)):
                with contextlib.suppress(IkError):
                    return self._motions.place(
                        *state,
                        arm=arm,
                        card=card.name,
                        card_from_tool=card_from_tool,
                        low=pose[2, 3] < LOW_M,
                        spot=spot,
                    )
            return self._motions.home(*state)
        arms = [arm.name for arm in self._motions.arms_by_distance(pose[:3, 3])]
        for grip, arm in itertools.product(GRIPS[self._attempts % len(GRIPS) :] + GRIPS[:1], arms):
            with contextlib.suppress(IkError):
                return self._motions.pick(*state, arm=arm, card=card.name, card_pose=pose, grip=grip)
        return self._motions.home(*state)

    def _free_spot(self, truth: SceneTruth, card: SceneObject) -> Array:
        """Return the pose of a flat card in the row of cards where there is most room."""
        others = np.array([o.pose.position[:2] for o in truth.objects if o.role == "card" and o.name != card.name])
        spots = np.array([[CARD_ROW_X_M, y] for y in np.linspace(-ROW_HALF_M, ROW_HALF_M, 21)])
        room = np.linalg.norm(spots[:, None] - others[None], axis=2).min(axis=1)
        # Of equal spots the one nearest to the card.
        distance = np.abs(spots[:, 1] - card.pose.position[1])
        x, y = spots[int(np.argmax(np.minimum(room, ROOM_M) - 0.1 * distance))]
        return flat_card_pose(x, y, 0.0)
