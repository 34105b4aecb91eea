# SPDX-License-Identifier: Apache-2.0
"""What the comparison of systems asks beside success: questions that a base model can answer, and time of a decision.

The questions are drawn as the tiny model's image-text data about the task is, from scenes of another seed: no picture
was trained on.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from chatvla_eval.opengl import choose_opengl
from chatvla_eval.policies import keep_text, make_policy
from chatvla_eval.results import source_commit
from chatvla_eval.trial import trial_seed
from chatvla_sim.benches import make_bench
from chatvla_sim.closed_loop import ClosedLoop
from chatvla_tables.plan import EXTRAS
from chatvla_tables.rows import EVAL_SEED
from chatvla_training.data.samples import ChatSample
from chatvla_training.synthetic.sources import open_source

__all__ = ["measure_latency", "write_questions"]

LONGEST_ANSWER = 24
"""Characters: an explanation can be worded in many ways and be right."""


def write_questions(folder: Path, *, count: int, source: str = "all") -> Path:
    """Write `count` short questions of the synthetic data `source` with their pictures as LLaVA-style JSON.

    Returns its path. Raises ValueError for a source that does not exist.
    """
    choose_opengl()
    pictures = folder / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for sample, question, answer in _short(count, source):
        entry: dict[str, Any] = {"id": sample.id}
        if sample.images:
            name = f"{len(entries):04d}.png"
            Image.fromarray(sample.images[0]).save(pictures / name)
            entry["image"] = f"images/{name}"
        entry["conversations"] = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        entries.append(entry)
    path = folder / EXTRAS["questions"]
    _write(path, entries)
    return path


def measure_latency(policy: str, folder: Path, *, task: str, scenes: int) -> Path:
    """Write how long a first decision takes, which writes a text, and the next, which keeps it.

    Medians over `scenes` [s]; texts are kept as the policy node keeps them.
    """
    choose_opengl()
    bench = make_bench(task)
    loop = ClosedLoop(bench)
    first: list[float] = []
    following: list[float] = []
    asked = make_policy(policy, task=task, spec=bench.spec, truth=bench.truth)
    keep_text(asked)
    # The first call of a process pays for what later ones find made.
    for index in range(scenes + 1):
        seed = trial_seed(EVAL_SEED, index)
        truth = bench.reset(split="in_domain", seed=seed)
        asked.reset(seed)
        observation = loop.observe(truth.instruction, None)
        started = time.perf_counter()
        inference = asked.infer(observation)
        middle = time.perf_counter()
        asked.infer(observation, None, inference.chunk)
        first.append(middle - started)
        following.append(time.perf_counter() - middle)
    bench.close()
    path = folder / EXTRAS["latency"]
    folder.mkdir(parents=True, exist_ok=True)
    found = {"first_s": statistics.median(first[1:]), "next_s": statistics.median(following[1:])}
    found = {key: round(value, 4) for key, value in found.items()}
    _write(path, found | {"scenes": scenes, "seed": EVAL_SEED, "commit": source_commit()})
    return path


def _short(count: int, name: str) -> Iterator[tuple[ChatSample, str, str]]:
    """Yield the first short question of each of `count` dialogues; without a picture, their opening question alone.

    Where no picture shows the scene, the opening question tells it, and those behind it hang on that.
    """
    source, found, index = open_source(name, EVAL_SEED), 0, 0
    while found < count:
        sample = source.sample(index, 0)
        index += 1
        turns = sample.turns if sample.images else sample.turns[:1]
        turn = next((turn for turn in turns if len(turn.answer) <= LONGEST_ANSWER), None)
        if turn is not None:
            yield sample, turn.question, turn.answer
            found += 1


def _write(path: Path, content: Any) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)
