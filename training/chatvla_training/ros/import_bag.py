# SPDX-License-Identifier: Apache-2.0
"""Make episodes from a recorded bag: `./chatvla import-bag BAG --out DIR`.

A trial of the simulator is one episode; on a real robot each instruction begins one. Joints and commands are brought to
the control rate; where a track has a gap, the episode is cut there. Simulated trials whose equation is not for robot
data are left out: open-world equations appear in no robot data, however they were recorded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from chatvla_control.argument_types import positive, view_heights
from chatvla_control.robot_spec import RobotSpec, robot_names, robot_spec
from chatvla_control.scene import SceneTruth
from chatvla_policy.runtime.recorded_views import RecordedViews
from chatvla_training.data.assemble import assemble
from chatvla_training.data.record import EpisodeRecord, RecordError, save_record
from chatvla_training.demos.thoughts import episode_facts, not_for_robot_data
from chatvla_training.provenance import commit
from chatvla_training.resample import Gap, find_gaps, resampled, whole_stretches
from chatvla_training.ros.bag_reader import BagContents, BagError, read_bag

__all__ = ["ImportReport", "episodes_of", "main"]

SHORTEST_S = 1.0
CUT_SIZE = (240, 320)
"""Height and width whose shape is taken where images are cut: of the benches' cameras and of the models' images."""


@dataclass(kw_only=True)
class ImportReport:
    """What became of a bag."""

    episodes: int = 0
    left_out: list[str] = field(default_factory=list)
    """Sentences: which stretch, and why it is no episode."""
    gaps: list[Gap] = field(default_factory=list)
    bad_messages: dict[str, int] = field(default_factory=dict)
    frames_without_reasoning: int = 0

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        found = [f"{self.episodes} episodes"]
        found += [f"left out: {reason}" for reason in self.left_out]
        found += [f"gap: {gap.track} silent for {gap.duration_s:.2f} s from {gap.start_s:.2f} s" for gap in self.gaps]
        found += [f"unreadable: {count} x {reason}" for reason, count in self.bad_messages.items()]
        if self.frames_without_reasoning:
            found.append(f"{self.frames_without_reasoning} frames have no reasoning")
        return found


def episodes_of(
    bag: BagContents, spec: RobotSpec, *, max_gap_s: float, keep_failures: bool
) -> tuple[list[EpisodeRecord], ImportReport]:
    """Return the episodes of a bag and the report of what was left out."""
    report = ImportReport(bad_messages=dict(bag.bad))
    for track in (bag.measured, bag.commanded):
        report.gaps += find_gaps(track.name, track.times_s, limit_s=max_gap_s)
    for view, images in bag.images.items():
        times = np.array([time for time, _ in images])
        report.gaps += find_gaps(f"camera/{view}", times, limit_s=max(max_gap_s, 0.5))
    records: list[EpisodeRecord] = []
    for start_s, stop_s, instruction, facts in _spans(bag, report, keep_failures=keep_failures):
        begin = max(start_s, bag.measured.times_s[0], bag.commanded.times_s[0])
        end = min(stop_s, bag.measured.times_s[-1], bag.commanded.times_s[-1])
        stretches = whole_stretches(begin, end, report.gaps, shortest_s=SHORTEST_S)
        if not stretches:
            report.left_out.append(f"{start_s:.2f} to {stop_s:.2f} s: no {SHORTEST_S} s without a gap")
        for a, b in stretches:
            record = _record(bag, spec, a, b, _said(bag, start_s, b, instruction), instruction, facts, report)
            if record is not None:
                records.append(record)
    report.episodes = len(records)
    return records, report


def _spans(
    bag: BagContents, report: ImportReport, *, keep_failures: bool
) -> list[tuple[float, float, str, dict[str, Any]]]:
    """Return start, stop, instruction and facts of each trial or instruction."""
    end_s = float(bag.measured.times_s[-1])
    if not bag.truths:
        changes = _instructions(bag)
        starts = [time for time, _ in changes]
        return [
            (time, stop, text, {"task": "", "source": "bag", "simulation": False})
            for (time, text), stop in zip(changes, [*starts[1:], end_s], strict=True)
            if text
        ]
    trials: dict[int, list[SceneTruth]] = {}
    for truth in bag.truths:
        if truth.ready:
            trials.setdefault(truth.trial, []).append(truth)
    spans = []
    for trial, states in trials.items():
        first, last = states[0], states[-1]
        where = f"trial {trial} (seed {first.seed})"
        if refusal := not_for_robot_data(first):
            report.left_out.append(f"{where}: {refusal}")
        elif not keep_failures and not any(state.success for state in states):
            report.left_out.append(f"{where}: not solved")
        else:
            facts = {**episode_facts(first), "source": "bag", "simulation": True}
            spans.append((first.stamp_s, last.stamp_s, first.instruction, facts))
    return spans


def _instructions(bag: BagContents) -> list[tuple[float, str]]:
    """Return when which instruction began, in order; an empty one stops what was followed and begins nothing.

    Those of the topic, or, where it gave none, those that reasonings name: of goals.
    """
    topic = [(time, text.strip()) for time, text in bag.instructions]
    if any(text for _, text in topic):
        return topic
    named = [(time, given.strip()) for time, _, given in bag.reasoning if given.strip()]
    both = sorted([*named, *topic])
    return [entry for index, entry in enumerate(both) if index == 0 or entry[1] != both[index - 1][1]]


def _said(bag: BagContents, start_s: float, stop_s: float, instruction: str) -> list[tuple[float, str]]:
    """Return (time, text) of what was thought about `instruction` from `start_s`, when it was given, to `stop_s`."""
    return [
        (time, text) for time, text, given in bag.reasoning if start_s <= time <= stop_s and given in ("", instruction)
    ]


def _record(
    bag: BagContents,
    spec: RobotSpec,
    start_s: float,
    stop_s: float,
    said: list[tuple[float, str]],
    instruction: str,
    facts: dict[str, Any],
    report: ImportReport,
) -> EpisodeRecord | None:
    """Return the episode of one stretch, from its first image on; None after reporting why there is none."""
    views = list(bag.images)
    times = {view: [time for time, _ in bag.images[view]] for view in views}
    first = max(
        (next((time for time in times[view] if time >= start_s - 1e-3), stop_s) for view in views), default=stop_s
    )
    grid = np.arange(first, stop_s, 1.0 / spec.rate_hz, dtype=np.float64)
    if len(grid) < SHORTEST_S * spec.rate_hz:
        report.left_out.append(f"{start_s:.2f} to {stop_s:.2f} s: no image in time")
        return None
    leading = views[0]
    arrivals = [time for time in times[leading] if first <= time <= grid[-1]] or [first]
    frame_rows = np.unique(np.searchsorted(grid, np.array(arrivals) - 1e-9))
    frame_rows = np.unique(np.concatenate([[0], frame_rows[frame_rows < len(grid)]]))
    frames: dict[str, list[bytes]] = {view: [] for view in views}
    texts: list[str] = []
    said_times = [time for time, _ in said]
    for row in frame_rows:
        now = float(grid[row]) + 1e-6
        for view in views:
            frames[view].append(bag.images[view][max(0, bisect_right(times[view], now) - 1)][1])
        latest = bisect_right(said_times, now) - 1
        texts.append(said[max(0, latest)][1] if said else "")
        report.frames_without_reasoning += not texts[-1]
    return EpisodeRecord(
        instruction=instruction,
        rate_hz=spec.rate_hz,
        states=resampled(bag.measured, grid).astype(np.float32),
        actions=resampled(bag.commanded, grid).astype(np.float32),
        frame_rows=frame_rows,
        frames=frames,
        reasoning=texts,
        facts=facts,
    )


def main(arguments: Sequence[str]) -> int:
    """Import a bag; return the exit code."""
    options = _parser().parse_args(arguments)
    spec = robot_spec(options.robot)
    views = RecordedViews(options.view_height_deg, CUT_SIZE) if options.view_height_deg else None
    try:
        bag = read_bag(
            options.bag,
            spec,
            namespace=options.namespace,
            codec=options.image_codec,
            frame_hz=options.frame_hz,
            views=views,
        )
        records, report = episodes_of(bag, spec, max_gap_s=options.max_gap_s, keep_failures=options.keep_failures)
        taken = {} if views is None else views.taken()
        print("\n".join([*report.lines(), *(f"camera {view}: {part} is kept" for view, part in taken.items())]))
        if not records:
            print("import-bag: nothing to store", file=sys.stderr)
            return 1
        with tempfile.TemporaryDirectory() as work:
            paths = [Path(work) / f"episode-{index:06d}.npz" for index in range(len(records))]
            for record, path in zip(records, paths, strict=True):
                save_record(record, path)
            provenance = {"source": "bag", "bag": options.bag.name, "commit": commit(), "report": report.lines()}
            provenance["cut"] = taken
            share = 0.05 if len(records) > 1 else 0.0
            names = spec.joint_names
            assemble(
                paths,
                options.out.absolute(),
                robot=spec.name,
                joint_names=names,
                provenance=json.loads(json.dumps(provenance)),
                validation_share=share,
            )
    except (BagError, RecordError, OSError) as error:
        print(f"import-bag: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(records)} episodes, {sum(len(record.states) for record in records)} rows")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./chatvla import-bag", description="Make episodes from a recorded bag.")
    parser.add_argument("bag", type=Path, help="rosbag2 folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set; must not exist")
    parser.add_argument("--robot", choices=robot_names(), default="arx_r5")
    parser.add_argument("--namespace", default="chatvla", help="prefix of the topics (default chatvla; empty for none)")
    parser.add_argument("--frame-hz", type=positive, default=10.0, help="camera frames kept per second (default 10)")
    parser.add_argument("--max-gap-s", type=positive, default=0.2, help="longest silence bridged by interpolation [s]")
    parser.add_argument("--image-codec", choices=("jpeg", "png"), default="jpeg")
    parser.add_argument(
        "--view-height-deg",
        type=view_heights,
        default={},
        metavar="VIEW=DEG,...",
        help="keep the middle of a view's images, so many degrees high by the bag's camera_info (0: as high as they "
        "are) and 4:3, as the policy node takes it (default: whole images)",
    )
    parser.add_argument("--keep-failures", action="store_true", help="keep simulated trials that were not solved")
    return parser
