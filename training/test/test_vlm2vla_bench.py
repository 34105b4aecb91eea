# SPDX-License-Identifier: Apache-2.0
"""A demonstration as words, written again word for word, places the card in the real bench: the words say enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk
from chatvla_policy.systems.vlm2vla import Vlm2VlaPolicy
from chatvla_policy.vlm2vla.config import Vlm2VlaConfig
from chatvla_policy.vlm2vla.text_forms import subtasks_text
from chatvla_sim.benches import make_bench
from chatvla_sim.closed_loop import ClosedLoop
from chatvla_sim.expert import make_expert
from chatvla_training.data.assemble import assemble
from chatvla_training.data.record import save_record
from chatvla_training.demos.disturbance import DisturbanceSettings
from chatvla_training.demos.episode import DemoSettings, record_episode
from chatvla_training.vlm2vla.language_data import LanguageSource
from chatvla_training.vlm2vla.relabel import RelabelSettings, relabel
from chatvla_training.vlm2vla.run import motion_of, setup_of

from .vlm2vla_picks import lines

SEED = 5


class Teller:
    """Writes what the demonstration said, question by question."""

    def __init__(self, folder: Path) -> None:
        first = lines(folder, "subtasks")[0]
        self._steps = subtasks_text(first["subtasks"], first["thought"])
        self._plans = [entry["plan"] for entry in lines(folder, "plan")]
        self._actions = [entry["actions"] for entry in lines(folder, "actions")]

    def write(self, question: str, images: Sequence[NDArray[np.uint8]], **options: object) -> str:
        if question.startswith("Steps"):
            return self._steps
        return (self._plans if question.startswith("Plan") else self._actions).pop(0)

    def plain(self, text: str) -> str:
        return text


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one undisturbed demonstration, from home, as words: each part as asked at its first frame."""
    folder = tmp_path_factory.mktemp("demo")
    bench = make_bench("math_match")
    settings = DemoSettings(frame_hz=4.0, disturbance=DisturbanceSettings(share=0.0, home_share=1.0))
    record = record_episode(bench, make_expert("math_match", bench.spec, bench.truth), settings, SEED)
    save_record(record, folder / "0.npz")
    names = bench.spec.joint_names
    given = {"robot": bench.spec.name, "joint_names": names, "provenance": {}, "validation_share": 0.0}
    assemble([folder / "0.npz"], folder / "set", **given)
    bench.close()
    relabel(folder / "set", folder / "language", RelabelSettings(starts=1))
    return folder / "language"


@pytest.mark.slow
def test_the_words_of_a_demonstration_place_the_card(language: Path):
    info = LanguageSource(language, Vlm2VlaConfig()).info
    config = Vlm2VlaConfig(prompts="short", tell_pose=True, robots=(motion_of(info),))
    policy = Vlm2VlaPolicy(Teller(language), config, setup_of(info))
    bench = make_bench("math_match")
    truth = bench.reset(split="in_domain", seed=SEED)
    loop = ClosedLoop(bench)
    playing: ActionChunk | None = None
    for tick in range(int(40.0 * bench.spec.rate_hz)):
        if tick % 25 == 0:
            found = policy.infer(loop.observe(truth.instruction), None, playing)
            fault = loop.accept(found.chunk)
            assert fault is None, fault
            playing = found.chunk
            if found.done:
                break
        loop.tick()
    assert found.done
    assert bench.truth().success
    assert policy.counts["retries"] == 0
    bench.close()
