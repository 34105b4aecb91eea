# SPDX-License-Identifier: Apache-2.0
"""Say what VLM2VLA asks its model: the published prompts, and short ones for models with a tiny vocabulary.

A robot with several arms gets one sentence more, made from its RobotSpec, and names the arm in front of each subtask:
"left arm: Move to the card". (VLM2VLA, appendices D.4 and D.5; of the verifier's answer D.5 shows one example, whose
fields the prompt names here)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chatvla_control.robot_spec import RobotSpec
from chatvla_policy.vlm2vla.text_forms import MalformedError

__all__ = ["PROMPTS", "PromptSet", "arm_of", "arms_sentence", "with_arm"]

AXES = (
    "+dx is forward, -dx is backward, +dy is left, -dy is right, +dz is up, -dz is down, "
    "1 is gripper open, 0 is gripper closed."
)


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """One prompt per question; {task}, {subtask}, {plan}, {next}, {arms}, {pose} are filled in."""

    subtasks: str
    plan: str
    actions: str
    direct: str
    """Actions straight from the task: the variant without reasoning. No place is told: no arm has been chosen yet."""
    verify: str
    direction: str
    """Auxiliary training question; {axis} is filled in too."""
    way: str
    """Auxiliary training question without a picture, for plans that say from where to where; {start} and {end}, too."""

    def fill(self, name: str, **values: str) -> str:
        """Return prompt `name` with its places filled; a task goes without its full stop."""
        text: str = getattr(self, name)
        values = values | {"task": values.get("task", "").strip().removesuffix(".")}
        for key in ("task", "subtask", "plan", "next", "arms", "pose", "axis", "start", "end"):
            text = text.replace("{" + key + "}", values.get(key, ""))
        return text.strip()


PROMPTS: Mapping[str, PromptSet] = {
    "paper": PromptSet(
        subtasks="Describe the sequence of remaining high-level steps required to complete the overall task '{task}', "
        "starting from the current state. Give your output as a list. Be specific and do not skip steps. Here is an "
        "example for 'put the pot in the sink': ['Move Down to Pot', 'Grasp Pot', 'Lift Pot High', 'Move Pot Left to "
        "the Sink', 'Lower Pot to Sink', 'Release']. Start with 'Move to'{arms}",
        plan="Given the image, reason about what high-level actions the robot arm should take to complete the task "
        '"{subtask}". ' + AXES + " Provide concise, accurate spatial reasoning.{pose}",
        actions="You are programming a 4-DoF robot arm (x,y,z,gripper). " + AXES + " Based on the sub-task "
        "'{subtask}' and the reasoning '{plan}', output the sequence of low-level [dx, dy, dz, gripper] actions needed "
        "as a python list of lists. Be concise in direction of movement. Example format: [[dx1,dy1,dz1, grip1], "
        "[dx2,dy2,dz2, grip2]]. PROVIDE ONLY THE PYTHON LIST.{pose}",
        direct="You are programming a 4-DoF robot arm (x,y,z,gripper). " + AXES + " Based on the task '{task}', output "
        "the sequence of low-level [dx, dy, dz, gripper] actions needed as a python list of lists. Example format: "
        "[[dx1,dy1,dz1, grip1], [dx2,dy2,dz2, grip2]]. PROVIDE ONLY THE PYTHON LIST.{arms}",
        verify="You are a precision-oriented robot inspector. Your primary job is to evaluate the two images if the "
        "'Current Subtask' ({subtask}) was executed with enough precision to guarantee the success of the 'Next "
        "Subtask' ({next}). CRITICAL RULE: Judge the Precondition. A 'move to' action is ONLY successful if the final "
        "position is perfectly aligned for the subsequent action, i.e., executing a grasp as the next step will result "
        "in a successful grasp. A 'close enough' position is a FAILURE if it jeopardizes the next step. For a 'grasp' "
        "subtask to succeed, the gripper MUST be centered directly above the object's grasp point in the preceding "
        "'move' step. Any significant offset or misalignment in the 'after' image is a failure. Answer with JSON only: "
        '{"success": true or false, "confidence": "High" or "Low", "reasoning": "..."}',
        direction="Given the image, in which direction along {axis} should the robot arm move to complete the sub-task "
        "'{subtask}'? Answer with one word, or none.{pose}",
        way="The tool is at {start} and must go to {end} (x, y, z in centimetres). Say axis by axis how far it moves "
        "and in which direction.",
    ),
    "short": PromptSet(
        subtasks="Steps: {task}{arms}",
        plan="Plan: {subtask}{pose}",
        actions="Actions: {subtask} {plan}{pose}",
        direct="Actions: {task}{arms}",
        verify="Done: {subtask} next: {next}",
        direction="Direction {axis}: {subtask}{pose}",
        way="Way: {start} to {end}",
    ),
}
"""By the name that a checkpoint's config gives."""


def arms_sentence(spec: RobotSpec) -> str:
    """Return what the model is told about a robot with several arms; empty for one arm."""
    if len(spec.arms) == 1:
        return ""
    names = " and ".join(arm.name for arm in spec.arms)
    return (
        f". The robot has the arms {names}; begin each step with the arm that moves, such as '{spec.arms[0].name} arm:'"
    )


def with_arm(spec: RobotSpec, arm: int, subtask: str) -> str:
    """Return a subtask with the name of the arm that moves, where the robot has several."""
    return subtask if len(spec.arms) == 1 else f"{spec.arms[arm].name} arm: {subtask}"


def arm_of(spec: RobotSpec, subtask: str) -> int:
    """Return the arm that a subtask names; 0 for a robot with one arm. Raises MalformedError when it names none."""
    if len(spec.arms) == 1:
        return 0
    for number, arm in enumerate(spec.arms):
        if subtask.lower().startswith(f"{arm.name} arm:"):
            return number
    names = ", ".join(arm.name for arm in spec.arms)
    raise MalformedError(f"subtask {subtask!r:.60} does not begin with an arm of {spec.name}: {names}")
