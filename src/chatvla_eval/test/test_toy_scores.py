# SPDX-License-Identifier: Apache-2.0
"""Scores of the toy task: rectangles, labels, relation, region; the parser on many wordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chatvla_control.contracts import BoundingBox
from chatvla_control.scene import ObjectRole, SceneObject, SceneTruth
from chatvla_eval.in_process import InProcessSession
from chatvla_eval.session import TrialSetup
from chatvla_eval.tasks import task_by_name
from chatvla_eval.tasks.example_scene import ORIGIN, scene
from chatvla_eval.tasks.toy_placement import overlap, stated_boxes, stated_placement
from chatvla_policy.systems.untrained import save_untrained
from chatvla_sim.toy_placement.instructions import PHRASINGS, RELATION_PHRASES, instruction

TASK = task_by_name("toy_placement")
LABELS = ("red car", "blue box", "green duck")
CAR, BOX, GOAL = (100, 100, 200, 200), (400, 400, 600, 700), (300, 400, 400, 500)


def marked(label: str, corners: tuple[int, int, int, int]) -> str:
    x1, y1, x2, y2 = corners
    return f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


def thing(name: str, label: str, role: ObjectRole, corners: tuple[int, int, int, int]) -> SceneObject:
    x1, y1, x2, y2 = corners
    box = BoundingBox(label=label, view="right", x_min=x1 * 0.32, y_min=y1 * 0.24, x_max=x2 * 0.32, y_max=y2 * 0.24)
    return SceneObject(
        name=name,
        label=label,
        role=role,
        place="",
        pose=ORIGIN,
        size=(0.1, 0.1, 0.1),
        held=False,
        placed=False,
        box=box,
    )


def truth() -> SceneTruth:
    objects = (
        thing("thing_0", "red car", "target", CAR),
        thing("thing_1", "blue box", "reference", BOX),
        thing("thing_2", "green duck", "distractor", (700, 100, 760, 160)),
        thing("goal", "goal", "fixture", GOAL),
    )
    return replace(scene(), task="toy_placement", equation="", answer="left", target="thing_0", objects=objects)


GOOD = (
    f"The toy is {marked('red car', CAR)}. The reference is {marked('blue box', BOX)}. "
    f"I should put the red car to the left of the blue box, at the {marked('goal', GOAL)}."
)


def test_a_right_text_gets_all_points() -> None:
    scored = TASK.score(GOOD, truth())
    assert scored.measures == {"recognition": 2, "affordance": 1}
    assert (scored.answer, scored.choice) == ("left", "thing_0")
    assert scored.perceived
    assert scored.chosen


@pytest.mark.parametrize(
    ("old", "new", "part", "measures"),
    [
        ("(100,100),(200,200)", "(160,160),(260,260)", "target", (1, 1)),
        ("red_car", "red car", "", (2, 1)),
        ("<|object_ref_start|>blue box", "<|object_ref_start|>blue can", "reference", (1, 1)),
        ("to the left of", "to the right of", "relation", (2, 0)),
        ("put the red car", "put the green duck", "toy", (2, 0)),
        ("of the blue box,", "of the green duck,", "anchor", (2, 0)),
        ("(300,400),(400,500)", "(500,400),(600,500)", "region", (2, 0)),
    ],
)
def test_one_wrong_part_costs_its_points(old: str, new: str, part: str, measures: tuple[int, int]) -> None:
    scored = TASK.score(GOOD.replace(old, new), truth())
    assert (scored.measures["recognition"], scored.measures["affordance"]) == measures
    assert [name for name, points in scored.parts.items() if not points] == ([part] if part else [])


def test_a_text_without_a_goal_is_judged_by_its_words() -> None:
    scored = TASK.score("I should put the red car to the left of the blue box.", truth())
    assert scored.measures == {"recognition": 0, "affordance": 1}
    assert not scored.perceived


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        ("Put the red car on the left side of the blue box", "left"),
        ("The red car belongs to the right of the blue box", "right"),
        ("Move the red car before the blue box", "front"),
        ("Place the red car at the back of the blue box", "behind"),
        ("So put the red car onto the blue box", "on top"),
        ("Put the red car on top of the blue box", "on top"),
        ("I will place the red car under the blue box", "below"),
    ],
)
def test_wordings_of_every_relation_are_understood(text: str, relation: str) -> None:
    said = stated_placement(text, LABELS)
    assert (said.toy, said.relation, said.reference) == ("red car", relation, "blue box")


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        ("Put the red car on the table to the left of the blue box.", "left"),
        ("Put the red car to the left of the blue box on the table.", "left"),
        ("Take the red car, which is on the right, and put it in front of the blue box.", "front"),
        ("The red car on the left belongs behind the blue box.", "behind"),
        ("Find the blue box and put the red car behind it.", "behind"),
        ("Find the blue box on the right and put the red car to the left of it.", "left"),
        ("Look for the blue box, then move the red car before it.", "front"),
        ("Take the red car, find the blue box, and put it behind it.", "behind"),
        ("There is the blue box and the red car belongs behind it.", "behind"),
        ("Find the blue box and put the red car below the blue box.", "below"),
    ],
)
def test_other_places_and_pronouns_do_not_confuse(text: str, relation: str) -> None:
    said = stated_placement(text, LABELS)
    assert (said.toy, said.relation, said.reference) == ("red car", relation, "blue box")
    assert stated_placement("Put the red car behind it.", LABELS).reference == ""


@pytest.mark.parametrize("negation", ["should not", "must never", "can't", "shouldn't ever try to", "do not"])
def test_what_is_not_to_be_done_is_no_placement(negation: str) -> None:
    text = f"I {negation} put the red car behind the blue box."
    assert stated_placement(text, LABELS).toy == ""
    said = stated_placement(f"I should put the red car onto the blue box. {text}", LABELS)
    assert (said.toy, said.relation, said.reference) == ("red car", "on top", "blue box")
    assert stated_placement("It is not there yet, so I should put the red car behind the blue box.", LABELS).toy


@pytest.mark.parametrize("part", ["robot", "open_world"])
def test_the_benchs_own_phrasings_are_understood(part: str) -> None:
    for number in range(len(PHRASINGS[part])):
        for relation in RELATION_PHRASES:
            text = instruction(part, number, toy="red car", relation=relation, reference="blue box")
            said = stated_placement(text, LABELS)
            assert (said.toy, said.relation, said.reference) == ("red car", relation, "blue box"), text


def test_boxes_that_are_none_are_left_out() -> None:
    bad = ((200, 100, 100, 200), (0, 0, 2000, 10), (5, 5, 5, 9))
    assert stated_boxes("".join(marked("red car", corners) for corners in bad)) == []
    assert len(stated_boxes(marked("red car", CAR) * 100)) == 64


def test_overlap_is_intersection_over_union() -> None:
    (box,) = stated_boxes(marked("a", (0, 0, 100, 100)))
    (half,) = stated_boxes(marked("a", (50, 0, 150, 100)))
    assert overlap(box, box) == pytest.approx(1.0)
    assert overlap(box, half) == pytest.approx(1 / 3)
    assert overlap(box, None) == 0.0


@pytest.mark.parametrize("text", ["", "<|box_start|>" * 50, "put " * 5000, "((((,,,,", "left of", "\x00 put it on"])
def test_any_text_is_scored(text: str) -> None:
    scored = TASK.score(text, truth())
    assert scored.measures["recognition"] == 0
    assert scored.measures["affordance"] == 0


def test_a_policy_of_another_camera_gets_its_picture(tmp_path: Path) -> None:
    save_untrained(tmp_path / "wrist", robot="franka", camera="wrist", horizon=16, max_tokens=8)
    session = InProcessSession(task="toy_placement", policy=str(tmp_path / "wrist"))
    setup = TrialSetup(index=0, split="in_domain", seed=0)
    session.start(setup, session.reset(setup).instruction, 5.0)
    watch = session.watch()
    assert watch.error == ""
    assert len(watch.chunks) == 1
    session.close()
