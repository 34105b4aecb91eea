# SPDX-License-Identifier: Apache-2.0
"""The expert on the bench, closed loop, through the same controller as the driver's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest

from chatvla_control.contracts import Inference, ReasoningSource
from chatvla_control.scene import SceneTruth
from chatvla_sim.bench import BenchError
from chatvla_sim.closed_loop import ClosedLoop
from chatvla_sim.expert import make_expert
from chatvla_sim.math_match.bench import MathMatchBench
from chatvla_sim.math_match.expert import MathMatchExpert
from chatvla_sim.math_match.reasoning import find_place

TICKS = 13
"""Control ticks per chunk: about a quarter of a second."""


@pytest.fixture(scope="module")
def bench() -> Iterator[MathMatchBench]:
    bench = MathMatchBench()
    yield bench
    bench.close()


def run(
    bench: MathMatchBench,
    *,
    seed: int,
    forced: str | None = None,
    disturb: Callable[[float], None] | None = None,
    limit_s: float = 25.0,
) -> tuple[SceneTruth, Inference]:
    """Play one trial; `disturb` is called with the time into the trial before each chunk."""
    bench.reset(split="open_world", seed=seed)
    expert = make_expert("math_match", bench.spec, bench.truth)
    expert.reset(seed)
    loop, begun = ClosedLoop(bench), bench.time_s
    while True:
        if disturb is not None:
            disturb(bench.time_s - begun)
        inference = expert.infer(loop.observe("", ()), forced_reasoning=forced)
        if inference.done or bench.time_s - begun > limit_s:
            return bench.truth(), inference
        assert loop.accept(inference.chunk) is None
        for _ in range(TICKS):
            loop.tick()


@pytest.mark.parametrize("seed", range(40, 46))
def test_places_the_right_card_and_goes_home(bench: MathMatchBench, seed: int) -> None:
    truth, inference = run(bench, seed=seed, limit_s=10.0)
    assert truth.success
    assert inference.done
    assert bench.joint_state().positions == pytest.approx(np.array(bench.spec.home), abs=0.08)


def test_both_arms_are_used(bench: MathMatchBench) -> None:
    sides = set()
    for seed in range(12):
        truth = bench.reset(split="open_world", seed=seed)
        sides.add(next(o for o in truth.objects if o.name == truth.target).pose.position[1] > 0)
    assert sides == {True, False}


def test_chunks_join_without_a_jump(bench: MathMatchBench) -> None:
    truth = bench.reset(split="open_world", seed=50)
    expert = make_expert("math_match", bench.spec, bench.truth)
    loop, previous = ClosedLoop(bench), None
    limit = bench.spec.velocity * 0.6 / bench.spec.rate_hz
    for _ in range(20):
        chunk = expert.infer(loop.observe(truth.instruction, ())).chunk
        assert chunk.actions.shape == (50, bench.spec.width)
        assert chunk.start_s == pytest.approx(bench.time_s)
        assert (np.abs(np.diff(chunk.actions, axis=0)) <= limit + 1e-9).all()
        if previous is not None:
            assert np.abs(chunk.actions[0] - previous.actions[TICKS]).max() < 0.02
        previous = chunk
        loop.accept(chunk)
        for _ in range(TICKS):
            loop.tick()


def test_picks_again_when_the_card_is_moved_away(bench: MathMatchBench) -> None:
    moved = []

    def push(elapsed_s: float) -> None:
        if elapsed_s > 0.7 and not moved:
            moved.append(elapsed_s)
            bench.data.joint(bench.truth().target).qpos[0] -= 0.04
            mujoco.mj_forward(bench.model, bench.data)

    truth, _ = run(bench, seed=47, disturb=push)
    assert moved
    assert truth.success


def test_picks_again_when_the_card_is_dropped(bench: MathMatchBench) -> None:
    dropped = []

    def drop(elapsed_s: float) -> None:
        truth = bench.truth()
        if elapsed_s > 2.2 and not dropped and any(item.held for item in truth.objects):
            dropped.append(elapsed_s)
            # As if it had slipped: back on the table, out of the fingers.
            joint = bench.data.joint(truth.target)
            joint.qpos[:] = (0.25, joint.qpos[1], 0.03, *joint.qpos[3:])
            joint.qvel[:] = 0
            mujoco.mj_forward(bench.model, bench.data)

    truth, _ = run(bench, seed=48, disturb=drop)
    assert dropped
    assert truth.success


def test_solves_the_next_trial_when_reset_with_a_card_in_the_hand(bench: MathMatchBench) -> None:
    def until_held(elapsed_s: float) -> None:
        if any(item.held for item in bench.truth().objects):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(bench, seed=51, disturb=until_held)
    truth, _ = run(bench, seed=52)
    assert truth.success


def test_forced_reasoning_decides_the_card(bench: MathMatchBench) -> None:
    before = bench.reset(split="open_world", seed=49)
    wrong = next(item for item in before.objects if item.name != before.target)
    text = f"I should pick the {wrong.place} card."
    truth, inference = run(bench, seed=49, forced=text)
    assert truth.placed == wrong.name
    assert not truth.success
    assert inference.reasoning.text == text
    assert inference.reasoning.source is ReasoningSource.FORCED


def test_ways_are_its_own_and_the_other_arms(bench: MathMatchBench) -> None:
    truth = bench.reset(split="open_world", seed=49)
    expert = make_expert("math_match", bench.spec, bench.truth)
    assert isinstance(expert, MathMatchExpert)
    observation = ClosedLoop(bench).observe("", ())
    both = 0
    for card in (item for item in truth.objects if item.role == "card"):
        text = f"I should pick the {card.place} card."
        expert.reset(0)
        own = expert.infer(observation, forced_reasoning=text).chunk
        ways = expert.ways(observation, text)
        np.testing.assert_allclose(ways[0].actions, own.actions, atol=1e-9)
        moved = [np.abs(chunk.actions[-1] - bench.spec.home)[: bench.spec.width // 2].max() > 0.1 for chunk in ways]
        both += len(ways) == 2 and moved[0] != moved[1]
    assert both


def test_text_without_a_place_keeps_the_own_choice_and_says_so(bench: MathMatchBench) -> None:
    truth = bench.reset(split="open_world", seed=50)
    expert = make_expert("math_match", bench.spec, bench.truth)
    inference = expert.infer(ClosedLoop(bench).observe("", ()), forced_reasoning="bananas")
    assert "keep my own choice" in inference.reasoning.text
    assert inference.reasoning.source is ReasoningSource.SCRIPTED
    assert truth.answer in inference.reasoning.text


def test_reasoning_has_the_papers_form(bench: MathMatchBench) -> None:
    truth = bench.reset(split="open_world", seed=1)
    reasoning = make_expert("math_match", bench.spec, bench.truth).infer(ClosedLoop(bench).observe("", ())).reasoning
    target = next(item for item in truth.objects if item.name == truth.target)
    assert reasoning.text.startswith(
        f"On the whiteboard is {truth.equation}. {truth.equation}={truth.answer}. There are: "
    )
    assert reasoning.text.endswith(f"I should pick {target.place} card.")
    assert reasoning.answer == truth.answer
    assert [box.label for box in reasoning.boxes] == [item.label for item in truth.objects]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("I should pick the far left card.", "far left"),
        ("There are: 3 (left), 1 (right). I should pick left card.", "left"),
        ("So I TAKE the Far-Right one!", "far right"),
        ("The left card is wrong.", None),
        ("", None),
    ],
)
def test_finds_the_place_in_a_text(text: str, place: str | None) -> None:
    assert find_place(text, ("far left", "left", "right", "far right")) == place


def test_unknown_task_is_refused_with_those_that_exist(bench: MathMatchBench) -> None:
    with pytest.raises(BenchError, match="math_match"):
        make_expert("chess", bench.spec, bench.truth)
