# SPDX-License-Identifier: Apache-2.0
"""Replay bags through policies and compare two of them on the same bags.

Per trial with a known truth: the points of its first text, and whether it chooses the right object. Per bag: the
open-loop error, planned against recorded motion (joint positions OPEN_LOOP_S ahead, mean over joints).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chatvla_eval.paired import mcnemar, paired_difference
from chatvla_eval.policies import policy_name
from chatvla_eval.ros.policy_replay import replay_policy
from chatvla_eval.short_names import short_names
from chatvla_eval.statistics import mean_interval, proportion
from chatvla_eval.tasks import TASKS

__all__ = ["compared_on_bags", "policy_table", "replayed_bags"]

OPEN_LOOP_S = "0.5"
_DIGITS = 6


def replayed_bags(
    bags: Sequence[Path], policy: str, out: Path, *, namespace: str = "chatvla", seed: int = 0
) -> dict[str, Any]:
    """Return what `policy` thinks and plans on each bag; the replays' own files go into folders of `out`."""
    found: dict[str, Any] = {"policy": policy_name(policy), "seed": seed, "trials": [], "open_loop": {}}
    for bag, name in zip(bags, short_names(bags), strict=True):
        summary = replay_policy(bag, policy, out / name, namespace=namespace, seed=seed)
        found["checkpoint_hash"] = summary["checkpoint_hash"]
        found["trials"] += [{"bag": name, "number": k, **trial} for k, trial in enumerate(summary["trials"])]
        errors = summary["open_loop_error"]["horizons_s"].get(OPEN_LOOP_S)
        if errors is not None:
            joints = [value for joint, value in errors.items() if joint != "n"]
            found["open_loop"][name] = round(sum(joints) / len(joints), _DIGITS)
    chosen = [bool(trial["chosen"]) for trial in found["trials"]]
    found["summary"] = {"chosen": asdict(proportion(sum(chosen), len(chosen)))}
    for measure in _measures(found["trials"]):
        found["summary"][measure] = _rounded(asdict(mean_interval([trial[measure] for trial in found["trials"]])))
    found["summary"]["open_loop"] = _rounded(asdict(mean_interval(list(found["open_loop"].values()))))
    return found


def compared_on_bags(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paired comparison of two replays of the same bags: second minus first."""
    keys = [(trial["bag"], trial["number"]) for trial in second["trials"]]
    later = dict(zip(keys, second["trials"], strict=True))
    pairs = [
        (trial, later[trial["bag"], trial["number"]])
        for trial in first["trials"]
        if (trial["bag"], trial["number"]) in later
    ]
    found: dict[str, Any] = {"trials": len(pairs)}
    found["chosen"] = asdict(mcnemar([bool(a["chosen"]) for a, _ in pairs], [bool(b["chosen"]) for _, b in pairs]))
    for measure in _measures([a for a, _ in pairs]):
        difference = paired_difference([a[measure] for a, _ in pairs], [b[measure] for _, b in pairs])
        found[measure] = _rounded(asdict(difference))
    bags = [bag for bag in first["open_loop"] if bag in second["open_loop"]]
    difference = paired_difference(
        [first["open_loop"][bag] for bag in bags], [second["open_loop"][bag] for bag in bags]
    )
    found["open_loop"] = _rounded(asdict(difference))
    return found


def policy_table(results: Mapping[str, Any]) -> str:
    """Return the results as a plain table."""
    lines = [f"{len(results['bags'])} bags: {', '.join(results['bags'])}"]
    for run in results["policies"]:
        summary = run["summary"]
        chosen = summary["chosen"]
        lines.append(f"{run['policy']}: right choice {chosen['k']}/{chosen['n']}")
        lines += [f"  {name:<10} {_value(summary[name])}" for name in summary if name != "chosen"]
    if "comparison" in results:
        found = results["comparison"]
        test = found["chosen"]
        lines.append(
            f"second against first, {found['trials']} trials: right choice p = {test['p']:.3g} (McNemar, exact)"
        )
        lines += [f"  {name:<10} {_value(found[name])}" for name in found if name not in ("trials", "chosen")]
    return "\n".join(lines)


def _measures(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the measures that the trials carry points of."""
    names = {name for task in TASKS.values() for name in task.measures}
    return sorted(name for name in names if trials and all(name in trial for trial in trials))


def _value(interval: Mapping[str, Any]) -> str:
    if interval["mean"] is None:
        return "-"
    return f"{interval['mean']:.4g} [{interval['low']:.4g}, {interval['high']:.4g}], n {interval['n']}"


def _rounded(interval: Mapping[str, float]) -> dict[str, float | None]:
    """Return the interval with None for NaN: JSON has no NaN."""
    return {key: None if value != value else round(value, _DIGITS) for key, value in interval.items()}
