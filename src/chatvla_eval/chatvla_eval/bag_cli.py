# SPDX-License-Identifier: Apache-2.0
"""`chatvla eval --bag BAG ... [--policy P [--policy Q]]`: score recorded runs, or policies on recorded inputs.

Without a policy: the trials that the bags hold, scored like a rollout's, and a table of the bags. With one: what it
thinks and plans on the same inputs. With two: both, and a paired comparison.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatvla_control.argument_types import filled_path
from chatvla_control.scene import SEEDS_PER_RUN
from chatvla_eval.arguments import ArgumentParser
from chatvla_eval.bag_table import bag_row, write_bag_table
from chatvla_eval.out_folder import free_folder
from chatvla_eval.policies import policy_name, system_name
from chatvla_eval.report import write_report
from chatvla_eval.results import RESULTS_NAME, RunInfo, results_dict, source_commit, write_results
from chatvla_eval.short_names import short_names
from chatvla_eval.statistics import proportion
from chatvla_eval.summary_table import summary_table
from chatvla_eval.trial_result import TrialResult

if TYPE_CHECKING:
    from chatvla_eval.ros.bag_scores import ScoredBag
    from chatvla_eval.session import TrialSetup

__all__ = ["main"]

POLICIES_NAME = "bags.json"
_OF_A_TRIAL = ("split", "swap", "forced_reasoning", "force_correct")
_OWN_TEXT, _RIGHT_TEXT = "(the policy's own text)", "(the right reasoning)"


def main(argv: Sequence[str]) -> int:
    """Score the bags; return 0, or 1 on an error."""
    arguments = _parse(argv)
    try:
        from chatvla_eval.ros.bag_scores import bag_folders

        bags = bag_folders(arguments.bag)
        if arguments.policy:
            return _policies(arguments, bags)
        return _recorded(arguments, bags)
    except (OSError, ValueError) as error:
        print(f"chatvla eval: {error}", file=sys.stderr)
        return 1


def _recorded(arguments: argparse.Namespace, bags: Sequence[Path]) -> int:
    """Score what was recorded: results.json over all bags, a line for each."""
    from chatvla_eval.ros.bag_scores import score_bag

    scored = [
        score_bag(bag, name=name, namespace=arguments.namespace, report=arguments.report)
        for bag, name in zip(bags, short_names(bags), strict=True)
    ]
    tasks = sorted({bag.task for bag in scored})
    if len(tasks) > 1:
        raise ValueError(f"the bags hold several tasks, {', '.join(tasks)}; score them apart")
    if len({bag.simulation for bag in scored}) > 1:
        raise ValueError("some bags are of the simulator and some of a real robot; score them apart")
    trials = _told_apart(scored)
    # Trials of several bags, or of several rollouts in one, are numbered on.
    alone = len(scored) == 1 and len({trial.index for trial in trials}) == len(trials)
    numbered = trials if alone else [replace(trial, index=index) for index, trial in enumerate(trials)]
    info = _info(scored, numbered, source_commit())
    write_results(arguments.out, info, numbered)
    if arguments.report:
        traces = [trace for bag in scored for trace in bag.traces]
        for trial, trace in zip(numbered, traces, strict=True):
            trace.write(arguments.out, trial.index)
    for bag in scored:
        k = sum(trial.success for trial in bag.trials)
        rate = proportion(k, len(bag.trials))
        print(f"{bag.name}: {bag.policy}, {k}/{rate.n} [{100 * rate.low:.0f}%, {100 * rate.high:.0f}%]")
        for topic, why in bag.unread.items():
            print(f"  {topic} left out in part: {why}", file=sys.stderr)
    print(summary_table(results_dict(info, numbered)))
    print(f"  results   {arguments.out / RESULTS_NAME}")
    apart = [results_dict(_info([bag], bag.trials, info.commit), bag.trials) for bag in scored]
    rows = [bag_row(bag.name, results, bag.unread) for bag, results in zip(scored, apart, strict=True)]
    print(f"  by bag    {write_bag_table(arguments.out, rows, task=info.task, commit=info.commit)}")
    if arguments.report:
        print(f"  report    {write_report(arguments.out)}")
    return 0


def _told_apart(scored: Sequence[ScoredBag]) -> list[TrialResult]:
    """Return all trials, each with its bag's name and what was asked for in it, as far as these differ."""
    asked = [
        {"bag": bag.name} | {key: getattr(setup, key) for key in _OF_A_TRIAL} for bag in scored for setup in bag.setups
    ]
    differing = [key for key in asked[0] if any(one[key] != asked[0][key] for one in asked)]
    trials = [trial for bag in scored for trial in bag.trials]
    return [
        replace(trial, scene={key: one[key] for key in differing} | trial.scene)
        for trial, one in zip(trials, asked, strict=True)
    ]


def _info(scored: Sequence[ScoredBag], trials: Sequence[TrialResult], commit: str) -> RunInfo:
    policies = list(dict.fromkeys(bag.policy for bag in scored))
    setups = [setup for bag in scored for setup in bag.setups]
    acted_on = list(dict.fromkeys(_acted_on(setup) for setup in setups))
    return RunInfo(
        task=scored[0].task,
        split=" + ".join(dict.fromkeys(setup.split for setup in setups)),
        seed=trials[0].seed // SEEDS_PER_RUN,
        trials=len(trials),
        policy=" + ".join(policies),
        system=" + ".join(dict.fromkeys(filter(None, map(system_name, policies)))),
        privileged=any(bag.privileged for bag in scored),
        simulation=all(bag.simulation for bag in scored),
        swap=any(setup.swap for setup in setups),
        forced_reasoning="" if acted_on in ([_OWN_TEXT], [_RIGHT_TEXT]) else " + ".join(acted_on),
        force_correct=acted_on == [_RIGHT_TEXT],
        fonts=tuple(dict.fromkeys(font for setup in setups for font in setup.fonts)),
        transport="bag",
        commit=commit,
    )


def _acted_on(setup: TrialSetup) -> str:
    """Return the text that was forced in a trial, or the words for what else the policy acted on."""
    return _RIGHT_TEXT if setup.force_correct else setup.forced_reasoning or _OWN_TEXT


def _policies(arguments: argparse.Namespace, bags: Sequence[Path]) -> int:
    """Replay the bags through each policy and compare the first two."""
    from chatvla_eval.ros.bag_policies import compared_on_bags, policy_table, replayed_bags

    runs = []
    for number, policy in enumerate(arguments.policy):
        folder = arguments.out / f"{number}_{policy_name(policy)}"
        runs.append(replayed_bags(bags, policy, folder, namespace=arguments.namespace, seed=arguments.seed))
    results: dict[str, Any] = {
        "commit": source_commit(),
        "bags": short_names(bags),
        "policies": runs,
    }
    if len(runs) == 2:
        results["comparison"] = compared_on_bags(*runs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / POLICIES_NAME
    path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(policy_table(results))
    print(f"  results   {path}")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(prog="chatvla eval", description="Score recorded bags, or policies on recorded inputs.")
    parser.add_argument("--bag", type=Path, nargs="+", required=True, help="bags, or folders of bags")
    parser.add_argument(
        "--policy", action="append", default=[], help="checkpoint to replay them through; two to compare"
    )
    parser.add_argument("--namespace", default="chatvla", help="namespace of the recorded topics")
    parser.add_argument("--seed", type=int, default=0, help="seed of the policies' noise")
    parser.add_argument("--out", type=filled_path, help="folder for the results (default: runs/eval/bags, or _2, ...)")
    parser.add_argument("--report", action="store_true", help="write report.html, one file that opens offline")
    words = ["--help"] if {"-h", "--help"} & set(argv) else argv
    arguments = parser.parse_strictly(words)
    if arguments.policy and arguments.report:
        parser.error("--report shows recorded trials; it does not go with --policy")
    arguments.out = arguments.out or free_folder(
        Path("runs/eval/bags"), POLICIES_NAME if arguments.policy else RESULTS_NAME
    )
    parser.require_writable("--out", arguments.out, folder=True)
    return arguments
