# SPDX-License-Identifier: Apache-2.0
"""Solve the toy bench by script: read the truth, pick the toy, place it, go home.

Reactive: each call looks at the truth and at the measured joints, keeps the plan while it fits, and makes a new one
when the toy was moved, missed or dropped. Successive chunks are windows of one smooth motion: they join without a jump.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk, ActionMode, Inference, Observation, Reasoning, ReasoningSource
from chatvla_control.kinematics import IkError, pose_matrix
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.scene import SceneObject, SceneTruth
from chatvla_sim.poses import matrix_of
from chatvla_sim.toy_placement.judge import RACK
from chatvla_sim.toy_placement.kinds import KINDS
from chatvla_sim.toy_placement.motions import GRIPS, Plan, ToyMotions
from chatvla_sim.toy_placement.objects import kind_of
from chatvla_sim.toy_placement.rack import TRAY_FRONT_M, tray_place
from chatvla_sim.toy_placement.reasoning import find_label, find_relation, reasoning_text, written_boxes
from chatvla_sim.toy_placement.relations import goal_position

__all__ = ["ToyPlacementExpert"]

Array = NDArray[np.float64]
CHUNK_STEPS = 24
VALID_S = 1.5
"""How long after its start a chunk may be played."""
MOVED_M = 0.010
LOST_RAD = 0.3
"""Measured joints farther than this from the plan: something else moved the arm, plan anew from where it is."""
MISSED_S = 0.4
"""How long after closing the toy may still be reported as not held."""
LOW_M = 0.06
"""A held toy whose bottom is lower than this is lifted before it is carried."""
LOWEST_GRIP_M = 0.030
"""Finger tips reach 18 mm below the tool point and must not touch the table, also where a policy that learned from
this is some millimetres off."""
STUCK_S = 1.0
"""When nothing can be done: time until it is tried again."""


class ToyPlacementExpert:
    """Policy `expert` of the task toy_placement."""

    name = "expert"
    privileged = True

    def __init__(self, spec: RobotSpec, truth: Callable[[], SceneTruth]) -> None:
        """`truth` returns the newest truth of the scene."""
        self._spec, self._truth = spec, truth
        self._motions = ToyMotions(spec)
        self._rotary = np.array([joint.unit == "rad" for joint in spec.joints])
        self._count = self._runs = 0
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forget the last instruction. The expert draws nothing at random; `seed` is not used."""
        self._runs += 1
        self._plan: Plan | None = None
        self._attempts = 0
        """How often the toy was missed in a row: each time another way to take it is tried first."""
        self._aim: tuple[int, str, str] | None = None

    def infer(
        self,
        observation: Observation,
        forced_reasoning: str | None = None,
        previous_chunk: ActionChunk | None = None,
    ) -> Inference:
        """Return reasoning and the next seconds of motion, starting at the observation's stamp."""
        begun = time.monotonic()
        truth = self._truth()
        toy, relation, text, source = self._think(truth, forced_reasoning)
        self._count += 1
        plan = self._keep_or_plan(observation, truth, toy, relation)
        own = toy.name == truth.target and relation == truth.answer
        there = toy.placed if own else self._is_near(truth, toy, relation)
        done = there and plan.trajectory.end_s <= observation.stamp_s and plan.kind != "pick"
        reasoning = Reasoning(
            id=f"expert-{self._runs}-{truth.trial}-{toy.name}-{relation}",
            text=text,
            stamp_s=observation.stamp_s,
            source=source,
            policy=self.name,
            privileged=True,
            instruction=observation.instruction,
            answer=relation,
            boxes=written_boxes(truth),
            seconds=time.monotonic() - begun,
        )
        return Inference(reasoning=reasoning, chunk=self._chunk(plan, observation, reasoning), done=done)

    def _think(self, truth: SceneTruth, forced: str | None) -> tuple[SceneObject, str, str, ReasoningSource]:
        """Return the toy to place, the relation, the text that says so, and the text's source."""
        toys = {item.label: item for item in truth.objects if item.role != "fixture" and is_toy(item)}
        own = next(item for item in truth.objects if item.name == truth.target)
        if forced is None:
            return own, truth.answer, reasoning_text(truth, own, truth.answer), ReasoningSource.SCRIPTED
        label, relation = find_label(forced, list(toys)), find_relation(forced)
        has_rack = any(item.name == RACK for item in truth.objects)
        if label is not None and relation is not None and (has_rack or relation != "below"):
            return toys[label], relation, forced, ReasoningSource.FORCED
        note = "The given text names no toy of the scene or no place that exists: I keep my own choice."
        text = f"{reasoning_text(truth, own, truth.answer)} {note}"
        return own, truth.answer, text, ReasoningSource.SCRIPTED

    def _goal(self, truth: SceneTruth, toy: SceneObject, relation: str) -> Array:
        """Return base_from_toy (4, 4) of the goal."""
        reference = next(item for item in truth.objects if item.role == "reference")
        position = goal_position(relation, matrix_of(reference.pose), reference.size, toy.size)
        rack = next((item for item in truth.objects if item.name == RACK), None)
        if relation == "below" and rack is not None:
            position[:2] = tray_place(deck_of(rack))
        return pose_matrix(np.eye(3), position)

    def _is_near(self, truth: SceneTruth, toy: SceneObject, relation: str) -> bool:
        """Return whether a toy that was forced to be placed lies at its goal."""
        offset = np.subtract(toy.pose.position, self._goal(truth, toy, relation)[:3, 3])
        return bool(np.linalg.norm(offset) < 0.05 and not toy.held)

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

    def _keep_or_plan(self, observation: Observation, truth: SceneTruth, toy: SceneObject, relation: str) -> Plan:
        now, measured = observation.stamp_s, observation.joint_positions
        aim = (truth.trial, toy.name, relation)
        plan = self._plan
        if plan is None or self._is_lost(plan, now, measured):
            state = (now, measured.copy(), np.zeros_like(measured))
        else:
            state = (now, plan.trajectory.sample(np.array([now]))[0], plan.trajectory.velocity(now))
            if aim == self._aim and self._fits(plan, now, truth, toy, relation):
                return plan
            missed = plan.kind == "pick" and now >= plan.grip_s and not toy.held
            self._attempts = self._attempts + 1 if missed else 0
        self._aim = aim
        self._plan = self._next_plan(state, measured, truth, toy, relation)
        return self._plan

    def _is_lost(self, plan: Plan, now: float, measured: Array) -> bool:
        planned = plan.trajectory.sample(np.array([now]))[0]
        return bool(np.abs(planned - measured)[self._rotary].max() > LOST_RAD)

    def _is_there(self, truth: SceneTruth, toy: SceneObject, relation: str) -> bool:
        own = toy.name == truth.target and relation == truth.answer
        return toy.placed if own else self._is_near(truth, toy, relation)

    def _fits(self, plan: Plan, now: float, truth: SceneTruth, toy: SceneObject, relation: str) -> bool:
        """Return whether the plan still leads to the goal."""
        over = now >= plan.trajectory.end_s
        if plan.kind == "pick" and plan.toy_pose is not None:
            if now < plan.grip_s:
                moved = np.linalg.norm(np.subtract(toy.pose.position, plan.toy_pose[:3, 3])) > MOVED_M
                # Closing fingers push the toy a little: that is no reason to start again.
                return bool(toy.held or now > plan.grip_s - 0.5 or not moved)
            return not over and (toy.held or now < plan.grip_s + MISSED_S)
        if plan.kind == "place" and plan.toy_pose is not None:
            if now < plan.grip_s:
                goal = self._goal(truth, toy, relation)[:3, 3]
                return bool(toy.held and np.linalg.norm(goal - plan.toy_pose[:3, 3]) < MOVED_M)
            return not over or self._is_there(truth, toy, relation)
        return self._is_there(truth, toy, relation) or now < plan.trajectory.end_s + STUCK_S

    def _next_plan(
        self,
        state: tuple[float, Array, Array],
        measured: Array,
        truth: SceneTruth,
        toy: SceneObject,
        relation: str,
    ) -> Plan:
        if self._is_there(truth, toy, relation):
            return self._motions.home(*state)
        pose, kind = matrix_of(toy.pose), KINDS[kind_of(toy.label)]
        upright = pose[2, 2] > 0.9
        grip_m = kind.grip_m if upright else float(min(toy.size[1], toy.size[2]))
        if toy.held:
            with contextlib.suppress(IkError):
                return self._motions.place(
                    *state,
                    goal=self._goal(truth, toy, relation),
                    toy_from_tool=np.linalg.inv(pose) @ self._motions.tool_pose(measured),
                    grip_m=grip_m,
                    low=pose[2, 3] - toy.size[2] / 2 < LOW_M,
                )
            return self._motions.home(*state)
        grip_z_m = pose[2, 3] - toy.size[2] / 2 + kind.grip_z_m if upright else pose[2, 3]
        first = self._attempts % len(GRIPS)
        for grip in GRIPS[first:] + GRIPS[:first]:
            with contextlib.suppress(IkError):
                return self._motions.pick(
                    *state,
                    toy=pose,
                    grip_m=grip_m,
                    grip_z_m=max(grip_z_m, LOWEST_GRIP_M),
                    grip=grip,
                )
        return self._motions.home(*state)


def deck_of(rack: SceneObject) -> tuple[float, float]:
    """Return the middle of the rack's deck."""
    return (rack.pose.position[0] + TRAY_FRONT_M / 2, rack.pose.position[1])


def is_toy(item: SceneObject) -> bool:
    """Return whether a gripper can take the object."""
    return KINDS[kind_of(item.label)].grip_m > 0.0
