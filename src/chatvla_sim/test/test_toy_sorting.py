# SPDX-License-Identifier: Apache-2.0
"""Sort the toys: what is drawn, what counts as a step, what ends the counting, and the expert's way through."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from chatvla_sim.closed_loop import ClosedLoop
from chatvla_sim.expert import make_expert
from chatvla_sim.toy_placement.objects import kind_of, object_part
from chatvla_sim.toy_placement.sorting_bench import ToySortingBench
from chatvla_sim.toy_placement.sorting_trial import (
    ANIMALS,
    SORTING_PHRASINGS,
    ZONE_Y_M,
    draw_sorting_trial,
    side_of,
)


@pytest.fixture(scope="module")
def bench() -> Iterator[ToySortingBench]:
    bench = ToySortingBench()
    yield bench
    bench.close()


def put(bench: ToySortingBench, index: int, side: str) -> None:
    """Set a toy down on a side, as a hand would."""
    joint = bench.data.joint(f"thing_{index}")
    height = joint.qpos[2]
    sign = 1.0 if side == "left" else -1.0
    joint.qpos = [0.38 + 0.08 * index, sign * 0.22, height, 1, 0, 0, 0]
    bench.step(0.4)


def test_two_animals_and_two_blocks_start_in_the_middle() -> None:
    for split in ("in_domain", "open_world", "held_out"):
        for seed in range(20):
            trial = draw_sorting_trial(split=split, seed=seed)
            sides = [side_of(thing.label) for thing in trial.things]
            assert sorted(sides) == ["left", "left", "right", "right"]
            assert len({thing.label for thing in trial.things}) == 4
            part = "robot" if split == "in_domain" else "held_out"
            assert {object_part(thing.label) for thing in trial.things} == {part}
            assert max(abs(thing.place.y_m) for thing in trial.things) < ZONE_Y_M - 0.04
            assert trial.instruction in SORTING_PHRASINGS["robot" if split == "in_domain" else split]


def test_swap_moves_every_toy_and_nothing_else() -> None:
    plain, swapped = (draw_sorting_trial(split="in_domain", seed=3, swap=swap) for swap in (False, True))
    assert [t.label for t in plain.things] == [t.label for t in swapped.things]
    assert plain.instruction == swapped.instruction
    assert all(a.place != b.place for a, b in zip(plain.things, swapped.things, strict=True))


def test_each_toy_on_its_side_is_a_step_and_all_four_solve_it(bench: ToySortingBench) -> None:
    truth = bench.reset(split="in_domain", seed=2)
    assert (truth.task, truth.success, truth.placed) == ("toy_sorting", False, "")
    done = 0
    while not truth.success:
        index = int(truth.target.removeprefix("thing_"))
        assert truth.answer == side_of(bench.trial.things[index].label)
        goal_y = truth.goal.position[1]
        assert (goal_y > ZONE_Y_M) == (truth.answer == "left")
        put(bench, index, truth.answer)
        truth, done = bench.truth(), done + 1
        assert sum(item.placed for item in truth.objects) == done
    assert done == 4
    assert truth.placed


def test_a_toy_on_the_wrong_side_ends_the_counting(bench: ToySortingBench) -> None:
    bench.reset(split="in_domain", seed=4)
    put(bench, 0, side_of(bench.trial.things[0].label))
    assert sum(item.placed for item in bench.truth().objects) == 1
    wrong = {"left": "right", "right": "left"}[side_of(bench.trial.things[1].label)]
    put(bench, 1, wrong)
    bench.truth()
    for index in (1, 2, 3):
        put(bench, index, side_of(bench.trial.things[index].label))
    truth = bench.truth()
    assert sum(item.placed for item in truth.objects) == 1
    assert not truth.success
    assert bench.reset(split="in_domain", seed=4).target == "thing_0", "a new trial counts anew"


def test_expert_sorts_in_the_order_of_the_scene(bench: ToySortingBench) -> None:
    bench.reset(split="open_world", seed=1)
    expert = make_expert("toy_sorting", bench.spec, bench.truth)
    loop, begun, order = ClosedLoop(bench), bench.time_s, []
    while bench.time_s - begun < 70.0:
        inference = expert.infer(loop.observe("", ()))
        toy = inference.reasoning.text.rpartition("The next toy is the ")[2].partition(",")[0]
        order += [toy] if toy not in order else []
        if inference.done:
            break
        assert loop.accept(inference.chunk) is None
        for _ in range(4):
            loop.tick()
    truth = bench.truth()
    assert truth.success
    assert order == [thing.label for thing in bench.trial.things]
    assert inference.done
    assert inference.reasoning.privileged
    assert bench.joint_state().positions == pytest.approx(np.array(bench.spec.home), abs=0.08)
    assert ("an animal" in inference.reasoning.text) == (kind_of(order[-1]) in ANIMALS)
