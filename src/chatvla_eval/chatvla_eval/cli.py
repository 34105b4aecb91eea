# SPDX-License-Identifier: Apache-2.0
"""Evaluate a policy in this process, faster than real time: `chatvla eval TASK --policy expert ...`.

`chatvla eval counterfactual|understanding|router ...` and `chatvla eval --bag BAG ...` are commands of their own.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from chatvla_control.argument_types import count, filled, filled_path, positive
from chatvla_control.scene import SEEDS_PER_RUN
from chatvla_eval.against import against, read_before
from chatvla_eval.arguments import ArgumentParser, one_of, unknown_name
from chatvla_eval.demonstrations import DEMONSTRATION_WARNING
from chatvla_eval.opengl import choose_opengl
from chatvla_eval.out_folder import another_run, free_folder
from chatvla_eval.parallel import TrialJob, default_jobs, run_jobs
from chatvla_eval.policies import EXPERT, PolicyUnavailableError, check_device, policy_name, system_name
from chatvla_eval.report import write_report
from chatvla_eval.results import RESULTS_NAME, RunInfo, results_dict, source_commit, write_results
from chatvla_eval.session import TrialSettings, TrialSetup
from chatvla_eval.summary_table import summary_table
from chatvla_eval.tasks import TASKS
from chatvla_eval.trial import trial_seed
from chatvla_eval.trial_result import TrialResult

__all__ = ["main"]

COMMANDS = {
    "--bag": "chatvla_eval.bag_cli",
    "counterfactual": "chatvla_eval.counterfactual.command",
    "router": "chatvla_eval.router.command",
    "understanding": "chatvla_eval.understanding.command",
}
"""Evaluations other than trials of a task, each a module with `main(arguments)`."""
OTHERS = """other evaluations, each with --help:
  --bag BAG ...     score recorded runs, or policies on recorded inputs
  counterfactual    swap the reasoning of a frame and see where chunks head
  router            count which experts tokens go to, by layer and kind of input
  understanding     score answers to questions about images"""
WITH_FONTS = ("math_match",)
"""Tasks with writing."""
MOST_SEED = 2**63 // SEEDS_PER_RUN - 1
LONGEST_DELAY_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the evaluation that `argv` describes; return 0 when every trial ran, 1 on an error, 130 on Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    other = "--bag" if any(word.partition("=")[0] == "--bag" for word in words) else words[0] if words else ""
    if other in COMMANDS:
        return import_module(COMMANDS[other]).main(words if other == "--bag" else words[1:])
    arguments = _parse(words)
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
    """Run all trials, appending to `results` and writing results.json after each; then what was asked for beyond."""
    if arguments.policy != EXPERT:
        check_device(arguments.device)
    jobs = _jobs(arguments)
    info = _info(arguments)
    before = read_before(arguments.against, task=arguments.task, split=arguments.split) if arguments.against else None
    if info.on_demonstrations():
        print(f"chatvla eval: {DEMONSTRATION_WARNING}", file=sys.stderr)
    forced: list[TrialResult] = []
    _run_jobs(arguments, jobs, results, lambda: write_results(arguments.out, info, results))
    if arguments.attribute:
        again = [
            replace(job, setup=replace(job.setup, force_correct=True), film_folder="", trace_folder="") for job in jobs
        ]
        _run_jobs(arguments, again, forced, lambda: write_results(arguments.out, info, results, forced))
    found = results_dict(info, results, forced)
    if before is not None:
        more = {"against": against(before, found, str(arguments.against))}
        write_results(arguments.out, info, results, forced, more)
        found |= more
    print(summary_table(found))
    print(f"  results   {arguments.out / RESULTS_NAME}")
    if arguments.report:
        print(f"  report    {write_report(arguments.out)}")


def _run_jobs(
    arguments: argparse.Namespace, jobs: list[TrialJob], results: list[TrialResult], write: Callable[[], object]
) -> None:
    """Run `jobs`, appending to `results` and calling `write` after each."""
    from tqdm import tqdm

    refresh_s = 0.1 if sys.stderr.isatty() else 10.0
    with (
        closing(run_jobs(jobs, workers=arguments.jobs)) as done,
        tqdm(done, total=len(jobs), unit="trial", disable=arguments.quiet, mininterval=refresh_s) as progress,
    ):
        for result in progress:
            results.append(result)
            write()
            progress.set_postfix_str(f"{sum(trial.success for trial in results)} succeeded", refresh=False)


def _jobs(arguments: argparse.Namespace) -> list[TrialJob]:
    fonts = tuple(str(font.resolve()) for font in arguments.font)
    job = TrialJob(
        task=arguments.task,
        policy=arguments.policy,
        setup=TrialSetup(index=0, split=arguments.split, seed=0, swap=arguments.swap, fonts=fonts),
        settings=TrialSettings(timeout_s=arguments.timeout or TASKS[arguments.task].timeout_s),
        replan_s=arguments.replan,
        delay_s=arguments.delay,
        device=arguments.device,
    )
    return [
        replace(
            job,
            setup=replace(
                job.setup,
                index=index,
                seed=trial_seed(arguments.seed, index),
                forced_reasoning=arguments.force,
                force_correct=arguments.force_correct,
            ),
            film_folder=str(arguments.out) if index == 0 and not arguments.no_film else "",
            trace_folder=str(arguments.out) if arguments.report else "",
        )
        for index in range(arguments.trials)
    ]


def _info(arguments: argparse.Namespace) -> RunInfo:
    return RunInfo(
        task=arguments.task,
        split=arguments.split,
        seed=arguments.seed,
        trials=arguments.trials,
        policy=policy_name(arguments.policy),
        system=system_name(arguments.policy),
        privileged=arguments.policy == EXPERT,
        simulation=True,
        swap=arguments.swap,
        forced_reasoning=arguments.force,
        force_correct=arguments.force_correct,
        delay_s=arguments.delay,
        replan_s=arguments.replan,
        timeout_s=arguments.timeout or TASKS[arguments.task].timeout_s,
        fonts=tuple(str(font) for font in arguments.font),
        commit=source_commit(),
    )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="chatvla eval",
        description="Evaluate a policy on a simulated bench, faster than real time.",
        epilog=OTHERS,
    )
    parser.add_argument("task", type=one_of("task", sorted(TASKS)), help=f"one of: {', '.join(sorted(TASKS))}")
    parser.add_argument(
        "--policy",
        type=filled,
        default=EXPERT,
        help="checkpoint folder or name, or expert, which sees the scene's truth (default: expert)",
    )
    parser.add_argument(
        "--device", type=filled, default="cpu", help="of a checkpoint: cpu, cuda, cuda:1 (default: cpu)"
    )
    parser.add_argument("--split", default="open_world", help="in_domain, open_world or held_out (default: open_world)")
    parser.add_argument("--trials", type=count, default=10, help="number of trials (default: 10)")
    parser.add_argument(
        "--seed",
        type=_seed,
        default=100,
        help="the same seed gives the same trials; in_domain of seeds 0 to 4 are demonstrations' scenes (default: 100)",
    )
    parser.add_argument("--out", type=filled_path, help="folder for results.json and the film of the first trial")
    parser.add_argument("--font", type=_font, nargs="+", default=[], help="font files to write equation and cards with")
    parser.add_argument("--swap", action="store_true", help="permute the cards against the same seeds")
    parser.add_argument("--force", default="", metavar="TEXT", help="reasoning to act on instead of the policy's own")
    parser.add_argument(
        "--force-correct", action="store_true", help="force the right reasoning, from the scene's truth"
    )
    parser.add_argument("--attribute", action="store_true", help="run all trials again with the right reasoning forced")
    parser.add_argument("--against", type=Path, help="earlier results on the same seeds: before and after, paired")
    parser.add_argument("--report", action="store_true", help="write report.html, one file that opens offline")
    parser.add_argument("--jobs", type=count, help="trials side by side (default: the cores; on a GPU 1)")
    parser.add_argument(
        "--timeout", type=positive, default=None, help="simulated seconds per trial (default: the task's)"
    )
    parser.add_argument(
        "--replan", type=positive, default=0.5, help="simulated seconds between questions to the policy"
    )
    parser.add_argument(
        "--delay",
        type=_delay,
        metavar="S[,S]",
        help="simulated seconds that an inference takes, and one that writes a text; its chunks are joined as in the "
        "policy node (default: it takes none)",
    )
    parser.add_argument("--no-film", action="store_true", help="make no film of the first trial")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_strictly(argv)
    if arguments.force and (arguments.force_correct or arguments.attribute):
        parser.error("--force gives one text to every trial; it goes with neither --force-correct nor --attribute")
    try:
        arguments.split = one_of("split", TASKS[arguments.task].splits)(arguments.split)
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --split: {error}")
    if arguments.policy != EXPERT and difflib.get_close_matches(arguments.policy.lower(), [EXPERT]):
        parser.error(f"argument --policy: {unknown_name('policy', arguments.policy, [EXPERT, 'a checkpoint folder'])}")
    if arguments.font and arguments.task not in WITH_FONTS:
        parser.error(f"argument --font: nothing is written in {arguments.task}; it is for {', '.join(WITH_FONTS)}")
    arguments.jobs = arguments.jobs or (1 if arguments.device.startswith("cuda") else default_jobs())
    arguments.out = _out(arguments, parser)
    parser.require_writable("--out", arguments.out, folder=True)
    if arguments.against is not None and arguments.against.resolve() == arguments.out.resolve():
        parser.error(f"argument --out: {arguments.out} holds the run of --against, which would be overwritten")
    return arguments


def _out(arguments: argparse.Namespace, parser: ArgumentParser) -> Path:
    """Return the folder of the run: one that holds no results of another."""
    info = _info(arguments)
    if arguments.out is None:
        folder: Path = Path("runs") / "eval" / _name(arguments)
        return free_folder(folder, RESULTS_NAME) if another_run(folder, info) else folder
    if other := another_run(arguments.out, info):
        parser.error(f"argument --out: {arguments.out} holds the results of another run ({other}); give another folder")
    return Path(arguments.out)


def _name(arguments: argparse.Namespace) -> str:
    """Return the name of the default folder: of what is asked for."""
    words = [arguments.task, policy_name(arguments.policy), arguments.split, str(arguments.seed)]
    words += [word for word in ("swap", "force", "force_correct", "delay", "font") if getattr(arguments, word)]
    return "_".join(words)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_SEED:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {MOST_SEED}, got {text!r}")
    return int(text)


def _delay(text: str) -> tuple[float, float]:
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or not all(0.0 <= part <= LONGEST_DELAY_S for part in parts):
        raise argparse.ArgumentTypeError(f"expected one or two times of 0 to {LONGEST_DELAY_S:g} s, got {text!r}")
    return parts[0], parts[-1]


def _font(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no font file {text!r}")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
