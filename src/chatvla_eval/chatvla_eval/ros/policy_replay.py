# SPDX-License-Identifier: Apache-2.0
"""Replay a bag through a checkpoint: `chatvla replay BAG --policy CHECKPOINT`. No graph, no wall clock.

The recorded camera images, joint states and instructions go through the policy node's own logic; written are
reasoning.jsonl, chunks.npy and replay.json with scores and open-loop errors. Same bag, checkpoint and seed: same bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from chatvla_control.bag_folder import check_bag_folder
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.ros.convert import ConversionError, joint_state_from_msg
from chatvla_control.ros.convert_scene import scene_truth_from_msg
from chatvla_control.ros.images import image_from_msg
from chatvla_control.ros.stamps import time_from_msg
from chatvla_control.scene import SceneTruth
from chatvla_eval.bags.notes import NotesError, read_notes
from chatvla_eval.bags.topics import TRIAL_TOPIC
from chatvla_eval.ros.trial_marks import read_mark
from chatvla_eval.tasks import TASKS, task_by_name
from chatvla_policy.runtime.observation_sync import ObservationSync
from chatvla_policy.runtime.recorded_views import RecordedViews, SizeChangedError, recorded_lenses
from chatvla_policy.runtime.replay import Input, OpenLoopError, Replayed, replayed
from chatvla_policy.runtime.scheduler import Scheduler
from chatvla_policy.runtime.scheduler_settings import SchedulerSettings
from chatvla_policy.runtime.view_window import WindowError
from chatvla_policy.systems import load_policy
from chatvla_policy.systems.driving import check_can_drive

__all__ = ["BagInputs", "ReplayError", "replay_policy", "run"]


class ReplayError(ValueError):
    """The bag does not hold what the policy needs; one sentence says what."""


@dataclass
class BagInputs:
    """Turns a bag's messages into inputs, and keeps what scores need. The truth never reaches the policy."""

    folder: Path
    spec: RobotSpec
    cameras: tuple[str, ...]
    prefix: str
    instruction: str = ""
    """An instruction for the whole bag; "" takes those of the bag."""
    views: RecordedViews = field(default_factory=lambda: RecordedViews({}, None))
    """Which part of the images is taken; as it is, all."""
    truths: list[tuple[float, SceneTruth]] = field(default_factory=list)
    """First truth of each trial with the time it was received."""
    joints: list[tuple[float, np.ndarray]] = field(default_factory=list)
    commands: list[tuple[float, np.ndarray]] = field(default_factory=list)
    marked: set[int] | None = None
    """Trials that a rollout marked from beginning to end; None where the bag holds no marks."""
    _trial_seen: int | None = None

    def __iter__(self) -> Iterator[Input]:
        """Yield the inputs in the order in which they were received. Raises ReplayError."""
        try:
            check_bag_folder(self.folder)
            with AnyReader([self.folder], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
                topics = {connection.topic for connection in reader.connections}
                self._check(topics)
                said = f"{self.prefix}instruction" in topics and not self.instruction
                heights_deg = self.views.heights_deg
                self.views.lenses = recorded_lenses(reader, self.prefix, filter(heights_deg.get, heights_deg))
                start_s = reader.start_time * 1e-9
                notes = read_notes(self.folder) or []
                self.marked = _marked(reader, self.prefix)
                self.truths = [(start_s + note.from_s, note.truth) for note in notes]
                told = [] if said or self.instruction else list(self.truths)
                if self.instruction:
                    yield Input(received_s=start_s, instruction=self.instruction)
                for connection, received_ns, raw in reader.messages():
                    while told and told[0][0] <= received_ns * 1e-9:
                        noted_s, truth = told.pop(0)
                        yield Input(received_s=noted_s, instruction=truth.instruction)
                    if connection.topic.startswith(self.prefix):
                        name = connection.topic.removeprefix(self.prefix)
                        wanted = self._input(
                            name, lambda c=connection, r=raw: reader.deserialize(r, c.msgtype), received_ns * 1e-9, said
                        )
                        if wanted is not None:
                            yield wanted
        except (ReplayError, NotesError):
            raise
        except WindowError as error:
            raise ReplayError(f"{self.folder}: {error}") from error
        except Exception as error:  # A damaged bag makes the reader raise anything.
            what = f"{type(error).__name__}: {error!s:.300}"
            raise ReplayError(f"{self.folder} cannot be read as a bag: {what}") from error

    def _check(self, topics: set[str]) -> None:
        needed = [f"camera/{view}/image_raw" for view in self.cameras] + ["joint_states"]
        for name in needed:
            if self.prefix + name not in topics:
                raise ReplayError(
                    f"{self.folder} has no topic {self.prefix}{name}; it holds: {', '.join(sorted(topics))}. "
                    "Another prefix is given by --namespace"
                )

    def _input(self, name: str, message: Any, received_s: float, said: bool) -> Input | None:
        view = name.removeprefix("camera/").removesuffix("/image_raw")
        if name == f"camera/{view}/image_raw" and view in self.cameras:
            msg = message()
            try:
                image = self.views.cut(view, image_from_msg(msg))
                return Input(received_s=received_s, image=(view, time_from_msg(msg.header.stamp), image))
            except (ConversionError, SizeChangedError) as error:
                return Input(received_s=received_s, refusal=(view, str(error)))
        if name in ("joint_states", "joint_command"):
            try:
                state = joint_state_from_msg(message(), self.spec.joint_names)
            except ConversionError as error:
                return Input(received_s=received_s, refusal=("", str(error))) if name == "joint_states" else None
            kept = self.joints if name == "joint_states" else self.commands
            kept.append((state.stamp_s, state.positions))
            return Input(received_s=received_s, joints=state) if name == "joint_states" else None
        if name == "instruction" and said:
            return Input(received_s=received_s, instruction=str(message().data).strip())
        if name == "sim/bench_state":
            return self._trial(scene_truth_from_msg(message()), received_s, said)
        return None

    def _trial(self, truth: SceneTruth, received_s: float, said: bool) -> Input | None:
        """Return the instruction of a trial that begins: the one part of the scene that a policy is told."""
        if not truth.ready or truth.trial == self._trial_seen:
            return None
        self._trial_seen = truth.trial
        if self.marked is None or truth.trial in self.marked:
            self.truths.append((received_s, truth))
        own = said or self.instruction
        return None if own else Input(received_s=received_s, instruction=truth.instruction)


def _marked(reader: AnyReader, prefix: str) -> set[int] | None:
    """Return the simulator's numbers of the trials that were marked from beginning to end, None without marks."""
    chosen = [connection for connection in reader.connections if connection.topic == prefix + TRIAL_TOPIC]
    if not chosen:
        return None
    said: list[Any] = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections=chosen)]
    marks = [read_mark(msg.data) for msg in said]
    begun = {mark["trial"] for mark in marks if mark["event"] == "begin"}
    return {mark["trial"] for mark in marks if mark["event"] == "end"} & begun if marks else None


def replay_policy(
    bag: Path,
    policy_name: str,
    out: Path,
    *,
    namespace: str = "chatvla",
    seed: int = 0,
    instruction: str = "",
    delay_s: float = 0.1,
    period_s: float = 0.5,
    view_heights_deg: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Write the replay's files into `out` and return the summary.

    Images are cut as the node's parameter `view_height_deg` would. Raises ReplayError and CheckpointError.
    """
    torch.set_num_threads(1)
    policy = load_policy(policy_name, seed=seed)
    check_can_drive(policy)
    setup = policy.setup  # type: ignore[attr-defined]
    prefix = "/" + namespace.strip("/") + "/" if namespace.strip("/") else "/"
    if unknown := [view for view in view_heights_deg or {} if view not in setup.cameras]:
        raise ReplayError(
            f"--view-height-deg names {', '.join(unknown)}; {policy.name} sees {', '.join(setup.cameras)}"
        )
    views = RecordedViews(view_heights_deg or {}, getattr(policy, "image_size", None))
    inputs = BagInputs(bag, setup.spec, setup.cameras, prefix, instruction, views)
    scheduler = Scheduler(
        spec=setup.spec,
        sync=ObservationSync(setup.spec, setup.cameras),
        # The recorded robot does not follow the plan: each chunk is planned anew from what was seen.
        settings=SchedulerSettings(chunk_period_s=period_s, chunking=False),
        tuning=policy.settings,  # type: ignore[attr-defined]
    )
    failures: list[str] = []
    results = list(replayed(inputs, policy, scheduler, delay_s=delay_s, seed=seed, on_failure=failures.append))
    if not results:
        why = failures[-1] if failures else "no instruction was given; use --instruction"
        raise ReplayError(f"{bag} led to no chunk: {why}")
    summary = {
        "policy": policy.name,
        "checkpoint_hash": policy.checkpoint.sha256,  # type: ignore[attr-defined]
        "seed": seed,
        "delay_s": delay_s,
        "chunk_period_s": period_s,
        "counts": asdict(scheduler.counts),
        "failures": sorted(set(failures)),
        "cut": views.taken(),
        "trials": _scores(inputs, results),
        "open_loop_error": _open_loop(inputs, results, setup.spec),
    }
    _write(out, results, summary)
    return summary


def _scores(inputs: BagInputs, results: list[Replayed]) -> list[dict[str, Any]]:
    """Return the points of each trial's first text, as rollouts are scored, where the scene's truth is known.

    A trial without a text scores nothing, and counts.
    """
    scores = []
    for number, (begin_s, truth) in enumerate(inputs.truths):
        end_s = inputs.truths[number + 1][0] if number + 1 < len(inputs.truths) else np.inf
        texts = [item.inference.reasoning.text for item in results if begin_s <= item.published_s < end_s]
        if truth.task not in TASKS:
            continue
        task = task_by_name(truth.task)
        text = next(filter(None, texts), "")
        scored = task.score(text, truth)
        scores.append(
            {
                "task": truth.task,
                "seed": truth.seed,
                "instruction": truth.instruction,
                **task.describe(truth),
                "text": text,
                **scored.measures,
                "parts": scored.parts,
                "chosen": scored.chosen,
            }
        )
    return scores


def _open_loop(inputs: BagInputs, results: list[Replayed], spec: RobotSpec) -> dict[str, Any]:
    """Return the error against the commands of the bag, or against its joints where it has none."""
    kept = inputs.commands or inputs.joints
    order = np.argsort([time for time, _ in kept], kind="stable")
    times, rows = np.array([kept[k][0] for k in order]), np.stack([kept[k][1] for k in order])
    error = OpenLoopError(times, rows, spec.joint_names)
    for item in results:
        error.add(item.planned)
    return {"against": "joint_command" if inputs.commands else "joint_states", "horizons_s": error.to_dict()}


def _write(out: Path, results: list[Replayed], summary: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    digest = hashlib.sha256()
    for item in results:
        thought, chunk = asdict(item.inference.reasoning), item.inference.chunk
        thought |= {"source": item.inference.reasoning.source.name, "published_s": item.published_s}
        thought |= {"chunk_id": chunk.id, "chunk_start_s": chunk.start_s, "chunk_steps": len(chunk.actions)}
        lines.append(json.dumps(thought, sort_keys=True))
        digest.update(np.ascontiguousarray(chunk.actions).tobytes())
    (out / "reasoning.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    longest = max(len(item.inference.chunk.actions) for item in results)
    rows = np.full((len(results), longest, results[0].inference.chunk.actions.shape[1]), np.nan)
    for place, item in zip(rows, results, strict=True):
        place[: len(item.inference.chunk.actions)] = item.inference.chunk.actions
    np.save(out / "chunks.npy", rows)
    summary["chunks_sha256"] = digest.hexdigest()
    (out / "replay.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def run(arguments: Any) -> int:
    """Replay as the command line asks; return the exit code."""
    try:
        summary = replay_policy(
            arguments.bag,
            arguments.policy,
            arguments.out,
            namespace=arguments.namespace,
            seed=arguments.seed,
            instruction=arguments.instruction,
            delay_s=arguments.inference,
            view_heights_deg=arguments.view_height_deg,
        )
    except (OSError, ValueError) as error:
        print(f"chatvla replay: {error}", file=sys.stderr)
        return 1
    print(f"{summary['counts']['chunks']} chunks by {summary['policy']}, written to {arguments.out}")
    for view, taken in summary["cut"].items():
        print(f"  camera {view}: {taken} was taken")
    for horizon, errors in summary["open_loop_error"]["horizons_s"].items():
        worst = max((name for name in errors if name != "n"), key=lambda name: errors[name])
        print(f"  {horizon:>4} s ahead: worst joint {worst}, mean error {errors[worst]:.4f} over {errors['n']} chunks")
    for trial in summary["trials"]:
        points = " ".join(f"{name} {trial[name]}/{most}" for name, most in TASKS[trial["task"]].measures.items())
        print(f"  seed {trial['seed']}: {trial.get('equation') or trial['instruction']} | {points}")
    return 0
