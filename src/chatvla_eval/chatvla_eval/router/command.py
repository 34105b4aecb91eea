# SPDX-License-Identifier: Apache-2.0
"""`chatvla eval router --policy P [--before Q] [--data FILE]`: expert traffic of understanding and robot inputs."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chatvla_control.argument_types import count, filled, filled_path
from chatvla_control.contracts import InputKind, Observation
from chatvla_eval.arguments import ArgumentParser, one_of
from chatvla_eval.demonstrations import DEMONSTRATION_NOTE, DEMONSTRATION_WARNING, shows_demonstrations
from chatvla_eval.opengl import choose_opengl
from chatvla_eval.out_folder import free_folder
from chatvla_eval.plots.bars import heat_map
from chatvla_eval.policies import PolicyUnavailableError, policy_name
from chatvla_eval.report.frame import write_aside
from chatvla_eval.report.from_markdown import write_pages
from chatvla_eval.results import source_commit
from chatvla_eval.router.traffic import KindTraffic, drift, first_frames, traffic_of
from chatvla_eval.tasks import TASKS
from chatvla_eval.trial import trial_seed
from chatvla_eval.understanding.questions import Question, read_questions

__all__ = ["PAPER", "main", "markdown", "router_results", "write"]

RESULTS_NAME = "router.json"

PAPER = "ChatVLA-2's authors (real robot, OpenReview): entropy 2.79 of 3.0 bits, top-1/top-8 ratio 5.27, std 282"
QUESTIONS = ("What is written on the whiteboard?", "List the cards on the table.", "Describe the picture.")
"""Asked of the bench's own pictures when no --data is given."""


def main(argv: Sequence[str]) -> int:
    """Count and write; return 0, 1 on an error, 130 on Ctrl-C."""
    arguments = _parse(argv)
    choose_opengl()
    shown = shows_demonstrations(arguments.split, [trial_seed(arguments.seed, 0)])
    if shown:
        print(f"chatvla eval router: {DEMONSTRATION_WARNING}", file=sys.stderr)
    try:
        frames = first_frames(arguments.task, split=arguments.split, seed=arguments.seed, count=arguments.trials)
        questions = [
            question for path in arguments.data for question in read_questions(path)[: arguments.limit or None]
        ]
        results = router_results(
            arguments.policy, arguments.before, frames, questions or _about(frames), seed=arguments.seed
        )
    except KeyboardInterrupt:
        return 130
    except (PolicyUnavailableError, OSError, ValueError, RuntimeError) as error:
        print(f"chatvla eval router: {error}", file=sys.stderr)
        return 1
    print(write(arguments.out, results | {"split": arguments.split, "demonstration_scenes": shown}))
    return 0


def router_results(
    policy: str, before: str, frames: Sequence[Observation], questions: Sequence[Question], *, seed: int = 0
) -> dict[str, Any]:
    """Return the traffic of `policy`, and of `before` (the checkpoint before fine-tuning) where given."""
    found: dict[str, Any] = {"commit": source_commit(), "seed": seed, "simulation": True, "paper": PAPER, "models": []}
    traffic: dict[str, Mapping[InputKind, KindTraffic | None]] = {}
    for when, name in (("before", before), ("after", policy)):
        if not name:
            continue
        traffic[when] = traffic_of(name, frames, questions, seed=seed)
        kinds = {kind.name.lower(): None if part is None else part.to_dict() for kind, part in traffic[when].items()}
        asked, robot = traffic[when][InputKind.UNDERSTANDING], traffic[when][InputKind.ROBOT]
        between = drift(asked, robot) if asked is not None and robot is not None else None
        found["models"].append(
            {"when": when, "policy": policy_name(name), "kinds": kinds, "drift_between_kinds": between}
        )
    if len(traffic) == 2:
        found["drift_of_training"] = {
            kind.name.lower(): drift(first, second)
            for kind in InputKind
            if (first := traffic["before"][kind]) is not None
            and (second := traffic["after"][kind]) is not None
            and first.counts_LE.shape == second.counts_LE.shape
        }
    return found


def write(folder: Path, results: Mapping[str, Any]) -> str:
    """Write a heat map per model and kind, router.md, .html and, last, .json into `folder`; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    page = markdown(results)
    for model in results["models"]:
        for kind, part in model["kinds"].items():
            if part is not None:
                (folder / _plot_name(model["when"], kind)).write_text(_plot(model, kind, part), encoding="utf-8")
    write_pages(folder, "router", page)
    write_aside(folder / RESULTS_NAME, json.dumps(results, indent=1, allow_nan=False) + "\n")
    return page


def markdown(results: Mapping[str, Any]) -> str:
    """Return the tables as a page."""
    lines = ["# Router", "", f"{results['paper']}.", ""]
    if results.get("demonstration_scenes"):
        lines += [f"Frames: {DEMONSTRATION_NOTE}.", ""]
    for model in results["models"]:
        for kind, part in model["kinds"].items():
            made = f"{kind} inputs{' (simulation)' if kind == InputKind.ROBOT.name.lower() else ''}"
            lines += [f"## {model['policy']}, {model['when']} fine-tuning, {made}", ""]
            if part is None:
                lines += ["No router: every token passes one MLP.", ""]
                continue
            mean = part["mean"]
            ratio = "undefined, an expert got no token" if mean["top_ratio"] is None else f"{mean['top_ratio']:.2f}"
            lines += [
                f"{part['inputs']} inputs, {part['tokens']} tokens, top {part['top_k']}. "
                f"Entropy {mean['entropy_bits']:.2f} of {mean['most_bits']:.1f} bits, "
                f"busiest over idlest {ratio}, std {mean['std']:.0f} slots.",
                "",
                *_rows(part, model["drift_between_kinds"]),
                "",
                f"![Load]({_plot_name(model['when'], kind)})",
                "",
            ]
    for kind, values in results.get("drift_of_training", {}).items():
        lines += [
            f"Drift of the load by fine-tuning, {kind}: {', '.join(f'{value:.2f}' for value in values)} by layer.",
            "",
        ]
    return "\n".join([*lines, f"Commit {results['commit']}.", ""])


def _rows(part: Mapping[str, Any], between: Sequence[float] | None) -> list[str]:
    experts = range(len(part["counts"][0]))
    lines = [f"| layer | {' | '.join(f'expert {k}' for k in experts)} | entropy | ratio | std | drift to other kind |"]
    lines += ["|" + "---|" * (len(part["counts"][0]) + 5)]
    for layer, counts in enumerate(part["counts"]):
        ratio = part["top_ratio"][layer]
        cells = [
            str(layer),
            *map(str, counts),
            f"{part['entropy_bits'][layer]:.2f}",
            "-" if ratio is None else f"{ratio:.1f}",
        ]
        cells += [f"{part['std'][layer]:.0f}", "-" if between is None else f"{between[layer]:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _plot(model: Mapping[str, Any], kind: str, part: Mapping[str, Any]) -> str:
    rows = [[count / max(1, sum(counts)) for count in counts] for counts in part["counts"]]
    return heat_map(
        rows,
        rows=[f"layer {layer}" for layer in range(len(rows))],
        columns=[f"expert {k}" for k in range(len(rows[0]))],
        title=f"Share of tokens per expert: {model['policy']}, {kind} inputs",
        limit=max(1.0 / part["top_k"], *(max(row) for row in rows)),
        standalone=True,
    )


def _plot_name(when: str, kind: str) -> str:
    return f"router_{when}_{kind}.svg"


def _about(frames: Sequence[Observation]) -> list[Question]:
    """Return questions about the bench's own pictures."""
    from PIL import Image

    found = []
    for number, frame in enumerate(frames):
        buffer = io.BytesIO()
        Image.fromarray(next(iter(frame.images.values()))).save(buffer, "PNG")
        text = QUESTIONS[number % len(QUESTIONS)]
        found.append(Question(name=str(number), text=text, answers=(), images=(buffer.getvalue(),)))
    return found


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="chatvla eval router", description="Which experts tokens go to, by layer and kind of input."
    )
    parser.add_argument("--policy", type=filled, required=True, help="checkpoint folder or name")
    parser.add_argument("--before", default="", help="checkpoint before fine-tuning")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="LLaVA .json or VLMEvalKit .tsv files to ask")
    parser.add_argument("--limit", type=count, default=0, help="first questions of each file only")
    parser.add_argument("--task", type=one_of("task", sorted(TASKS)), default="math_match", help="task of the frames")
    parser.add_argument("--split", default="open_world", help="split to draw frames from")
    parser.add_argument("--trials", type=count, default=20, help="trials whose first frame is a robot input")
    parser.add_argument("--seed", type=int, default=100, help="seed of trials and noise")
    parser.add_argument(
        "--out", type=filled_path, help="folder for tables and plots (default: runs/router, or _2, ...)"
    )
    arguments = parser.parse_strictly(argv)
    try:
        arguments.split = one_of("split", TASKS[arguments.task].splits)(arguments.split)
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --split: {error}")
    arguments.out = arguments.out or free_folder(Path("runs/router"), RESULTS_NAME)
    parser.require_writable("--out", arguments.out, folder=True)
    return arguments
