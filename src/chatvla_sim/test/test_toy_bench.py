# SPDX-License-Identifier: Apache-2.0
"""The toy bench: determinism, splits, relations, truth, pictures, honest physics."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from chatvla_control.kinematics import pose_matrix
from chatvla_sim.bench import BenchError
from chatvla_sim.benches import make_bench
from chatvla_sim.toy_placement.bench import ToyPlacementBench
from chatvla_sim.toy_placement.instructions import PHRASINGS, RELATION_PHRASES
from chatvla_sim.toy_placement.judge import GOAL
from chatvla_sim.toy_placement.kinds import KINDS, TOY_KINDS
from chatvla_sim.toy_placement.motions import ToyMotions
from chatvla_sim.toy_placement.objects import HELD_OUT_KINDS, kind_of, labels, object_part
from chatvla_sim.toy_placement.rack import rack_middle
from chatvla_sim.toy_placement.relations import RELATIONS, goal_position, is_fulfilled
from chatvla_sim.toy_placement.trial import draw_trial

FLAT_TOPS = {kind.size[2] for kind in KINDS.values() if kind.flat_top}
SPLITS = ("in_domain", "open_world", "held_out")


@pytest.fixture(scope="module")
def bench() -> Iterator[ToyPlacementBench]:
    bench = ToyPlacementBench()
    yield bench
    bench.close()


def test_same_seed_gives_the_same_image_bytes(bench: ToyPlacementBench) -> None:
    images = []
    for seed in (5, 6, 5):
        bench.reset(split="open_world", seed=seed)
        images.append(bench.render("right"))
    assert images[0].shape == (240, 320, 3)
    assert images[0].tobytes() == images[2].tobytes() != images[1].tobytes()


def test_all_objects_and_the_goal_are_in_view_and_boxes_enclose_them(bench: ToyPlacementBench) -> None:
    for split in SPLITS:
        for seed in range(6):
            truth = bench.reset(split=split, seed=seed)
            for item in truth.objects:
                assert item.box is not None, item.name
                assert 0 < item.box.x_min < item.box.x_max < 320, (split, seed, item.label)
                assert 0 < item.box.y_min < item.box.y_max < 240, (split, seed, item.label)
    truth = bench.reset(split="in_domain", seed=0)
    image = bench.render("right").astype(int)
    table = np.median(image[150:230, 120:220].reshape(-1, 3), axis=0)
    for item in truth.objects:
        if item.role != "fixture" and item.box is not None:
            box = item.box
            inside = image[int(box.y_min) : int(box.y_max) + 1, int(box.x_min) : int(box.x_max) + 1]
            assert (np.abs(inside - table).max(axis=2) > 40).mean() > 0.3, item.label


def test_relations_come_in_turn_and_instructions_name_what_is_meant() -> None:
    for seed in range(12):
        trial = draw_trial(split="in_domain", seed=seed)
        assert trial.relation == RELATIONS[seed % 6]
        assert trial.target.label in trial.instruction
        assert trial.reference.label in trial.instruction
        assert RELATION_PHRASES[trial.relation] in trial.instruction


def test_objects_belong_to_the_parts_of_their_split() -> None:
    for seed in range(60):
        assert {object_part(thing.label) for thing in draw_trial(split="in_domain", seed=seed).things} == {"robot"}
        assert {object_part(t.label) for t in draw_trial(split="held_out", seed=seed).things} == {"held_out"}
        trial = draw_trial(split="open_world", seed=seed)
        assert "robot" not in {object_part(thing.label) for thing in trial.things}
        asked = (trial.target.label, trial.reference.label)
        held_out = [label for label in asked if object_part(label) == "held_out"]
        assert ("never_seen_kind" in trial.subsets) == any(kind_of(label) in HELD_OUT_KINDS for label in held_out)
        assert ("never_seen_object" in trial.subsets) == any(kind_of(n) not in HELD_OUT_KINDS for n in held_out)


def test_kinds_of_the_open_world_are_in_no_robot_data_and_every_relation_has_references() -> None:
    for toys in (True, False):
        robot, open_world = (labels(toys=toys, part=part) for part in ("robot", "open_world"))
        assert not {kind_of(label) for label in robot} & {kind_of(label) for label in open_world}
        assert min(len(robot), len(open_world)) > 15
    for part in ("robot", "open_world", "held_out"):
        assert any(KINDS[kind_of(label)].flat_top for label in labels(toys=False, part=part))
    sentences = [sentence for part in PHRASINGS.values() for sentence, _ in part]
    assert len(set(sentences)) >= len(sentences) - 1, "one sentence is shared, with other words for the relation"


def test_demonstrations_show_the_heights_that_the_open_world_asks_for() -> None:
    """Of grips, and of what toys are put on: what no demonstration shows, no policy can learn."""
    assert len({kind.grip_z_m for kind in TOY_KINDS}) == 1
    tops = {
        part: sorted({KINDS[kind_of(name)].size[2] for name in labels(toys=False, part=part)} & FLAT_TOPS)
        for part in ("robot", "open_world")
    }
    assert tops["robot"][0] <= tops["open_world"][0] <= tops["open_world"][-1] <= tops["robot"][-1]


def test_open_world_marks_its_never_seen_shares() -> None:
    trials = [draw_trial(split="open_world", seed=seed) for seed in range(300)]
    shares = {
        mark: np.mean([mark in trial.subsets for trial in trials])
        for mark in ("never_seen_object", "never_seen_kind", "never_seen_phrasing")
    }
    assert 0.13 < shares["never_seen_object"] < 0.27
    assert 0.05 < shares["never_seen_kind"] < 0.16
    assert 0.13 < shares["never_seen_phrasing"] < 0.27


def test_swap_exchanges_the_toys_and_nothing_else() -> None:
    for seed in range(12):
        plain, swapped = (draw_trial(split="open_world", seed=seed, swap=swap) for swap in (False, True))
        assert plain.instruction == swapped.instruction
        assert plain.things[0].place == swapped.things[2].place != plain.things[2].place
        assert plain.things[1] == swapped.things[1]


@pytest.mark.parametrize("relation", RELATIONS)
def test_goal_fulfils_its_relation_and_no_other_place_does(relation: str) -> None:
    toy, reference = KINDS["car"].size, KINDS["box"].size
    deck = (0.67, 0.1) if relation == "below" else None
    floor = 0.13 if relation == "below" else 0.0
    stands = pose_matrix(np.eye(3), np.array([*(deck or (0.5, 0.0)), floor + reference[2] / 2]))
    goal = pose_matrix(np.eye(3), goal_position(relation, stands, reference, toy))
    assert is_fulfilled(relation, goal, toy, stands, reference, deck)
    for offset in ([0.24, 0, 0], [0, 0.2, 0], [0, -0.2, 0], [-0.25, 0, 0], [0, 0, 0.03]):
        away = goal.copy()
        away[:3, 3] += offset
        assert not is_fulfilled(relation, away, toy, stands, reference, deck), offset


def test_a_toy_on_the_tray_is_below_and_beside_nothing() -> None:
    """The tray is no higher than what counts as resting on the table."""
    toy, reference = KINDS["car"].size, KINDS["box"].size
    deck = (0.67, 0.1)
    middle = rack_middle(deck)
    on_tray = pose_matrix(np.eye(3), np.array([middle[0] - 0.09, middle[1], 0.01 + toy[2] / 2]))
    beside = on_tray.copy()
    beside[:3, 3] = (on_tray[0, 3], on_tray[1, 3] - 0.14, reference[2] / 2)
    assert is_fulfilled("below", on_tray, toy, beside, reference, deck)
    assert is_fulfilled("left", on_tray, toy, beside, reference, None)
    assert not is_fulfilled("left", on_tray, toy, beside, reference, deck)


def test_directions_are_the_robots() -> None:
    size, stands = (0.1, 0.1, 0.1), pose_matrix(np.eye(3), np.array([0.5, 0.0, 0.05]))
    goals = {relation: goal_position(relation, stands, size, (0.04, 0.04, 0.04)) for relation in RELATIONS[:4]}
    assert goals["left"][1] > 0.05 > -0.05 > goals["right"][1]
    assert goals["behind"][0] > 0.55 > 0.45 > goals["front"][0]


def test_truth_names_target_reference_relation_and_goal(bench: ToyPlacementBench) -> None:
    truth = bench.reset(split="open_world", seed=7)
    roles = [item.role for item in truth.objects]
    assert roles.count("target") == roles.count("reference") == 1
    assert truth.answer == bench.trial.relation
    assert truth.target == next(item.name for item in truth.objects if item.role == "target")
    goal = next(item for item in truth.objects if item.name == GOAL)
    assert goal.pose == truth.goal
    assert not truth.success
    assert truth.placed == ""


def test_a_toy_put_at_the_goal_solves_the_trial_and_a_moved_reference_spoils_it(bench: ToyPlacementBench) -> None:
    for seed in range(6):
        truth = bench.reset(split="in_domain", seed=seed)
        joint = bench.data.joint("thing_0")
        joint.qpos = [*np.add(truth.goal.position, (0, 0, 0.002)), 1, 0, 0, 0]
        bench.step(0.5)
        assert bench.truth().success, bench.trial.relation
        if bench.trial.relation == "left":
            bench.data.joint("thing_1").qpos[0] += 0.04
            assert not bench.truth().success


def test_a_reference_that_stands_aside_of_an_arm_is_judged_from_there(bench: ToyPlacementBench) -> None:
    trial = draw_trial(split="in_domain", seed=0)
    drawn = trial.reference.place
    # The fingers stand in the middle of it.
    joints = ToyMotions(bench.spec).over(np.array([drawn.x_m, drawn.y_m, 0.02]), np.array([0.0, -1.0, 0.0]), 0.0)
    truth = bench.show(trial, joints)
    assert abs(truth.objects[1].pose.position[1] - drawn.y_m) == pytest.approx(0.06, abs=1e-3)
    bench.data.joint("thing_0").qpos = [*np.add(truth.goal.position, (0, 0, 0.002)), 1, 0, 0, 0]
    bench.step(0.5)
    assert bench.truth().success
    bench.data.joint("thing_1").qpos[0] += 0.04
    assert not bench.truth().success


def test_resting_scene_does_not_move_and_starts_unsolved(bench: ToyPlacementBench) -> None:
    for split in SPLITS:
        for seed in range(6):
            before = bench.reset(split=split, seed=seed)
            bench.step(0.5)
            after = bench.truth()
            assert not after.placed
            for old, new in zip(before.objects, after.objects, strict=True):
                assert new.pose.position == pytest.approx(old.pose.position, abs=2e-3), (split, seed, old.label)


def test_arm_and_time_go_on_over_a_reset(bench: ToyPlacementBench) -> None:
    bench.reset(split="in_domain", seed=1)
    bench.command(np.array(bench.spec.home) + np.array([0.2, 0, 0, 0, 0, 0, 0, -0.02]))
    bench.step(0.7)
    before = bench.joint_state()
    bench.reset(split="open_world", seed=2)
    after = bench.joint_state()
    assert after.positions == pytest.approx(before.positions)
    assert after.velocities == pytest.approx(before.velocities)
    assert bench.time_s == pytest.approx(before.stamp_s)


def test_the_camera_publishes_as_the_zed_driver_does(bench: ToyPlacementBench) -> None:
    stream = bench.stream("right")
    assert stream.encoding == "bgra8"
    assert stream.image_topic == "zed/zed_node/rgb/color/rect/image"
    assert stream.info_topic.rpartition("/")[0] == stream.image_topic.rpartition("/")[0]


def test_no_weld_holds_a_toy(bench: ToyPlacementBench) -> None:
    bench.reset(split="in_domain", seed=5)
    assert not any(kind in (mujoco.mjtEq.mjEQ_WELD, mujoco.mjtEq.mjEQ_CONNECT) for kind in bench.model.eq_type)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "nope", "seed": 1}, "in_domain, open_world, held_out"),
        ({"split": "in_domain", "seed": -1}, "negative"),
    ],
)
def test_bad_reset_is_refused_and_the_scene_stays(bench: ToyPlacementBench, arguments: dict, message: str) -> None:
    before = bench.reset(split="in_domain", seed=1)
    with pytest.raises(BenchError, match=message):
        bench.reset(**arguments)
    assert bench.truth().instruction == before.instruction


def test_other_robots_and_views_are_refused(bench: ToyPlacementBench) -> None:
    with pytest.raises(BenchError, match="franka"):
        make_bench("toy_placement", robot="arx_r5")
    with pytest.raises(BenchError, match="right"):
        bench.render("wrist")


def test_left_and_wrist_cameras_show_the_scene_when_asked_for() -> None:
    bench = make_bench("toy_placement")
    assert bench.views == ("right",)
    with pytest.raises(BenchError, match="right, left, wrist"):
        bench.use_views(("right", "top"))
    bench.use_views(("left", "right", "wrist"))
    truth = bench.reset(split="in_domain", seed=3)
    images = {view: bench.render(view).astype(int) for view in bench.views}
    assert bench.stream("left").image_topic == "camera/left/image_raw"
    target = truth.objects[0]
    for view in ("left", "right"):
        x, y = bench.camera(view).project(np.array([target.pose.position]))[0]
        patch = images[view][int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4]
        table = np.median(images[view][200:, 100:200].reshape(-1, 3), axis=0)
        assert np.abs(patch - table).max() > 40, view
    before = images["wrist"]
    bench.command(np.array(bench.spec.home) + np.array([0.4, 0.2, 0, 0, 0, 0, 0, 0]))
    bench.step(0.8)
    after = bench.render("wrist").astype(int)
    assert np.abs(after - before).mean() > 2.0, "the wrist's picture moves with the arm"
    forward = np.subtract(bench.camera("wrist").target, bench.camera("wrist").position)
    assert forward[2] < -0.7, "it looks down at the finger tips"
    bench.close()
