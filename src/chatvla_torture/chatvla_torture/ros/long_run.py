# SPDX-License-Identifier: Apache-2.0
"""Run trials for a long time: memory, handles and threads must stay, latency must not drift."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import numpy as np

from chatvla_control.ros.stamps import time_from_msg
from chatvla_msgs.msg import ActionChunk
from chatvla_torture.campaign import PartRun
from chatvla_torture.processes import Usage
from chatvla_torture.ros.rig import Rig

__all__ = ["run"]

_NODES = ("sim", "driver", "expert", "rollout")
_SAMPLE_S = 5.0
_WARM_UP_S = 300.0
"""Films of first trials, caches and pools fill in this time, at most half of the run."""
_GROWTH = 0.02
_DRIFT = 0.10
_DRIFT_S = 0.002
"""Drift of latency below the clock's and the scheduler's grain is not counted."""


def run(part: PartRun) -> None:
    """Run the part for the campaign's minutes."""
    seconds = part.minutes * 60.0
    samples = round(seconds / _SAMPLE_S)
    memory = part.promise("memory", "no node's memory grows by 2% after the warm-up", planned=samples, unit="samples")
    handles = part.promise("handles", "no node's handles or threads grow", planned=samples, unit="samples")
    latency = part.promise(
        "latency", "p99 of a chunk's age on arrival is at the end within 10% of the beginning", planned=1, unit="runs"
    )
    limits = part.promise("limits", "no command leaves the limits", planned=round(seconds * 50), unit="ticks")
    ages: list[tuple[float, float]] = []
    used: dict[str, list[Usage]] = {name: [] for name in _NODES}
    with Rig(part.scratch / "rig") as rig:

        def on_chunk(msg: ActionChunk) -> None:
            ages.append((time.monotonic(), rig.now_s() - time_from_msg(msg.header.stamp)))

        rig.node.create_subscription(ActionChunk, "action_chunk", on_chunk, 10)
        # The expert needs no pictures, and few are enough for the film: drawing is most of the bench's work.
        rig.start("sim", parameters={"camera_rate_hz": 5.0})
        rig.start("driver")
        rig.start("expert")
        rig.wait_ready("sim", "driver", "expert")
        out = str(part.scratch / "out")
        values = {"trials": 99_999, "split": "in_domain", "policy": "expert", "out": out, "wait": 600.0}
        rig.start("rollout", parameters=values)
        started_s = time.monotonic()
        try:
            for case in part.cases(samples):
                time.sleep(max(0.0, started_s + (case.number + 1) * _SAMPLE_S - time.monotonic()))
                for name in _NODES:
                    member = rig.processes[name]
                    memory.require(member.alive, f"{name} ended: {member.text()[-500:]}")
                    used[name].append(member.usage())
                part.say(f"{(time.monotonic() - started_s) / 60:.0f} of {part.minutes:g} minutes")
        except KeyboardInterrupt:
            # What was run until then is judged, and counted as what it is.
            samples = min(map(len, used.values()))
            used = {name: series[:samples] for name, series in used.items()}
            seconds = samples * _SAMPLE_S
        audit = rig.audit()
        limits.require(not audit.broken, str(audit.broken[:1]))
        limits.hold(audit.ticks)
        limits.notes["chunks"] = audit.chunks
        trials = json.loads((part.scratch / "out" / "results.json").read_text(encoding="utf-8"))["trials"]
        limits.notes.update({"trials": len(trials), "succeeded": sum(trial["success"] for trial in trials)})
    memory.require(samples >= 4, f"ended after {samples} samples: too few to judge")
    first = max(1, min(round(_WARM_UP_S / _SAMPLE_S), samples // 2))
    span = max(1, min(first, samples - first) // 2)
    for name, series in used.items():
        grown = _level(series[-span:]) / _level(series[first : first + span]) - 1.0
        memory.notes[name] = f"{_level(series[-1:]) / 1e6:.0f} MB, {100 * grown:+.2f}%"
        memory.require(grown < _GROWTH, f"{name} grew by {100 * grown:.2f}%")
        for what in ("threads", "handles"):
            before, after = (
                np.median([getattr(item, what) for item in part_])
                for part_ in (series[first : first + span], series[-span:])
            )
            handles.require(after <= before, f"{name} has {after:g} {what}, at first {before:g}")
            handles.notes[f"{name} {what}"] = int(after)
    memory.hold(samples)
    handles.hold(samples)
    sixth = seconds / 6.0
    ends_s = ages[-1][0] if ages else 0.0
    begin = [age for at_s, age in ages if at_s - ages[0][0] < sixth]
    end = [age for at_s, age in ages if ends_s - at_s < sixth]
    p99 = [float(np.percentile(part_, 99)) for part_ in (begin, end)]
    latency.notes.update({"first ms": 1e3 * p99[0], "last ms": 1e3 * p99[1], "chunks": len(ages)})
    latency.require(p99[1] - p99[0] < max(_DRIFT * p99[0], _DRIFT_S), f"p99 went from {p99[0]:.4f} to {p99[1]:.4f} s")
    latency.hold()


def _level(series: Sequence[Usage]) -> float:
    return float(np.median([item.memory_bytes for item in series]))
