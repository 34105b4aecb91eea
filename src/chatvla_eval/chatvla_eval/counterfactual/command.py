# SPDX-License-Identifier: Apache-2.0
"""`chatvla eval counterfactual --policy P [--policy Q] --out DIR`: swap the reasoning of the same frame."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chatvla_control.argument_types import count, filled, filled_path
from chatvla_control.subordinate import worker_pool
from chatvla_eval.arguments import ArgumentParser, one_of
from chatvla_eval.counterfactual.doses import DOSES
from chatvla_eval.counterfactual.replay import FrameSettings, replay_frame
from chatvla_eval.counterfactual.summary import comparison, divergence_plot, heading_plot, markdown, summary
from chatvla_eval.demonstrations import DEMONSTRATION_WARNING, shows_demonstrations
from chatvla_eval.opengl import choose_opengl
from chatvla_eval.out_folder import free_folder
from chatvla_eval.parallel import default_jobs
from chatvla_eval.policies import EXPERT, PolicyUnavailableError
from chatvla_eval.report.frame import write_aside
from chatvla_eval.report.from_markdown import write_pages
from chatvla_eval.results import source_commit
from chatvla_eval.tasks import TASKS
from chatvla_eval.trial import trial_seed

__all__ = ["main"]

RESULTS_NAME = "counterfactual.json"


def main(argv: Sequence[str]) -> int:
    """Run the replay; return 0, 1 on an error, 130 on Ctrl-C."""
    arguments = _parse(argv)
    choose_opengl()
    try:
        results = _run(arguments)
    except KeyboardInterrupt:
        print("counterfactual: stopped", file=sys.stderr)
        return 130
    except (PolicyUnavailableError, OSError, ValueError, RuntimeError) as error:
        print(f"chatvla eval counterfactual: {error}", file=sys.stderr)
        return 1
    print(write(arguments.out, results))
    return 0


def write(folder: Path, results: dict[str, Any]) -> str:
    """Write the plots, counterfactual.md, .html and, last, .json into `folder`; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    page = markdown(results)
    for name, plot in {"headings.svg": heading_plot, "divergence.svg": divergence_plot}.items():
        (folder / name).write_text(plot(results), encoding="utf-8")
    plots = "\n![Headings](headings.svg)\n\n![Divergence](divergence.svg)\n"
    write_pages(folder, "counterfactual", page + plots)
    write_aside(folder / RESULTS_NAME, json.dumps(results, indent=1, allow_nan=False) + "\n")
    return page


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    shown = shows_demonstrations(arguments.split, [trial_seed(arguments.seed, 0)]) and {*arguments.policy} != {EXPERT}
    if shown:
        print(f"chatvla eval counterfactual: {DEMONSTRATION_WARNING}", file=sys.stderr)
    results: dict[str, Any] = {
        "task": arguments.task,
        "split": arguments.split,
        "seed": arguments.seed,
        "demonstration_scenes": shown,
        "simulation": True,
        "commit": source_commit(),
        "frames_asked": arguments.frames,
        "policies": [],
    }
    for policy in arguments.policy:
        jobs = [
            FrameSettings(
                task=arguments.task,
                policy=policy,
                split=arguments.split,
                seed=trial_seed(arguments.seed, index),
                resamples=arguments.resamples,
            )
            for index in range(arguments.frames)
        ]
        frames = _frames(jobs, arguments)
        head = {key: frames[0][key] for key in ("policy", "privileged")}
        results["policies"].append({**head, "summary": summary(frames), "frames": frames})
    if len(results["policies"]) == 2:
        results["comparison"] = comparison(*(policy["frames"] for policy in results["policies"]))
    return results


def _frames(jobs: list[FrameSettings], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from tqdm import tqdm

    def shown(found: Any) -> list[dict[str, Any]]:
        return list(tqdm(found, total=len(jobs), unit="frame", disable=arguments.quiet))

    if arguments.jobs == 1 or len(jobs) == 1:
        return shown(map(replay_frame, jobs))
    with worker_pool(min(arguments.jobs, len(jobs))) as pool:
        return shown(pool.map(replay_frame, jobs))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="chatvla eval counterfactual",
        description="Swap the reasoning of a frame, see where chunks head.",
    )
    parser.add_argument(
        "--policy", type=filled, action="append", required=True, help="checkpoint folder or name; twice to compare"
    )
    parser.add_argument("--task", type=one_of("task", sorted(DOSES)), default="math_match", help="task of the frames")
    parser.add_argument("--split", default="open_world", help="split to draw frames from")
    parser.add_argument("--frames", type=count, default=52, help="number of trials whose first frame is taken")
    parser.add_argument("--seed", type=int, default=100, help="the same seed gives the same frames")
    parser.add_argument("--resamples", type=count, default=4, help="samples of the noise floor per frame")
    parser.add_argument("--jobs", type=count, default=default_jobs(), help="frames side by side")
    parser.add_argument(
        "--out", type=filled_path, help="folder for results and plots (default: runs/counterfactual, or _2, ...)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_strictly(argv)
    try:
        arguments.split = one_of("split", TASKS[arguments.task].splits)(arguments.split)
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --split: {error}")
    arguments.out = arguments.out or free_folder(Path("runs/counterfactual"), RESULTS_NAME)
    parser.require_writable("--out", arguments.out, folder=True)
    return arguments
