# SPDX-License-Identifier: Apache-2.0
"""Evaluate a policy in this process, faster than real time: `chatvla eval TASK --policy expert ...`."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from chatvla_eval.arguments import ArgumentParser, count, one_of, positive, unknown_name
from chatvla_eval.opengl import choose_opengl
from chatvla_eval.parallel import TrialJob, default_jobs, run_jobs
from chatvla_eval.policies import EXPERT, PolicyUnavailableError
from chatvla_eval.results import RunInfo, results_dict, source_commit, write_results
from chatvla_eval.summary_table import summary_table
from chatvla_eval.tasks import TASKS
from chatvla_eval.trial import TrialResult, TrialSettings, TrialSetup, trial_seed

__all__ = ["main"]

MOST_SEED = 2**63 // 100_000 - 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the evaluation that `argv` describes; return 0 when every trial ran, 1 on an error, 130 on Ctrl-C."""
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    choose_opengl()
    results: list[TrialResult] = []
    try:
        _run(arguments, results)
    except KeyboardInterrupt:
        print(f"stopped after {len(results)} of {arguments.trials} trials", file=sys.stderr)
        return 130
    except (PolicyUnavailableError, OSError, ValueError, RuntimeError) as error:
        print(f"chatvla eval: {error}", file=sys.stderr)
        return 1
    return 0


def _run(arguments: argparse.Namespace, results: list[TrialResult]) -> None:
    """Run all trials, appending to `results` and writing results.json after each."""
    from tqdm import tqdm

    jobs = _jobs(arguments)
    info = _info(arguments)
    refresh_s = 0.1 if sys.stderr.isatty() else 10.0
    with (
        closing(run_jobs(jobs, workers=arguments.jobs)) as done,
        tqdm(done, total=len(jobs), unit="trial", disable=arguments.quiet, mininterval=refresh_s) as progress,
    ):
        for result in progress:
            results.append(result)
            write_results(arguments.out, info, results)
            progress.set_postfix_str(f"{sum(trial.success for trial in results)} succeeded", refresh=False)
    print(summary_table(results_dict(info, results)))
    print(f"  results   {arguments.out / 'results.json'}")


def _jobs(arguments: argparse.Namespace) -> list[TrialJob]:
    fonts = tuple(str(font.resolve()) for font in arguments.font)
    job = TrialJob(
        task=arguments.task,
        policy=arguments.policy,
        setup=TrialSetup(index=0, split=arguments.split, seed=0, swap=arguments.swap, fonts=fonts),
        settings=TrialSettings(timeout_s=arguments.timeout),
        replan_s=arguments.replan,
    )
    return [
        replace(
            job,
            setup=replace(
                job.setup, index=index, seed=trial_seed(arguments.seed, index), forced_reasoning=arguments.force
            ),
            film_folder=str(arguments.out) if index == 0 and not arguments.no_film else "",
        )
        for index in range(arguments.trials)
    ]


def _info(arguments: argparse.Namespace) -> RunInfo:
    return RunInfo(
        task=arguments.task,
        split=arguments.split,
        seed=arguments.seed,
        trials=arguments.trials,
        policy=arguments.policy if arguments.policy == EXPERT else Path(arguments.policy).name,
        privileged=arguments.policy == EXPERT,
        simulation=True,
        swap=arguments.swap,
        forced_reasoning=arguments.force,
        fonts=tuple(str(font) for font in arguments.font),
        commit=source_commit(),
    )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="chatvla eval", description="Evaluate a policy on a simulated bench, faster than real time."
    )
    parser.add_argument("task", type=one_of("task", sorted(TASKS)), help=f"one of: {', '.join(sorted(TASKS))}")
    parser.add_argument(
        "--policy", default=EXPERT, help="checkpoint folder or name, or expert (it sees the scene's truth)"
    )
    parser.add_argument("--split", default="open_world", help="in_domain, open_world or held_out")
    parser.add_argument("--trials", type=count, default=10, help="number of trials")
    parser.add_argument("--seed", type=_seed, default=0, help="the same seed gives the same trials")
    parser.add_argument("--out", type=Path, help="folder for results.json and the film of the first trial")
    parser.add_argument("--font", type=_font, nargs="+", default=[], help="font files to write equation and cards with")
    parser.add_argument("--swap", action="store_true", help="permute the cards against the same seeds")
    parser.add_argument("--force", default="", metavar="TEXT", help="reasoning to act on instead of the policy's own")
    parser.add_argument("--jobs", type=count, default=default_jobs(), help="trials side by side (default: the cores)")
    parser.add_argument(
        "--timeout", type=positive, default=TrialSettings().timeout_s, help="simulated seconds per trial"
    )
    parser.add_argument(
        "--replan", type=positive, default=0.5, help="simulated seconds between questions to the policy"
    )
    parser.add_argument("--no-film", action="store_true", help="make no film of the first trial")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_strictly(argv)
    try:
        arguments.split = one_of("split", TASKS[arguments.task].splits)(arguments.split)
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --split: {error}")
    if arguments.policy != EXPERT and difflib.get_close_matches(arguments.policy.lower(), [EXPERT]):
        parser.error(f"argument --policy: {unknown_name('policy', arguments.policy, [EXPERT, 'a checkpoint folder'])}")
    if arguments.out is None:
        name = f"{arguments.task}_{Path(arguments.policy).name}_{arguments.split}_{arguments.seed}"
        arguments.out = Path("runs") / "eval" / name
    return arguments


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_SEED:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {MOST_SEED}, got {text!r}")
    return int(text)


def _font(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no font file {text!r}")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
