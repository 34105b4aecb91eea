# SPDX-License-Identifier: Apache-2.0
"""`chatvla eval understanding --data FILE ... --policy P [--base Q]`: answers, scores, retention against the base.

Answers are written to answers.json as soon as a model has given all of a file's; the finished results replace it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chatvla_control.argument_types import count, filled, filled_path
from chatvla_eval.arguments import ArgumentParser, one_of
from chatvla_eval.out_folder import free_folder
from chatvla_eval.paired import paired_difference, paired_ratio
from chatvla_eval.policies import PolicyUnavailableError, load_checkpoint_policy, policy_name
from chatvla_eval.report.frame import write_aside
from chatvla_eval.report.from_markdown import write_pages
from chatvla_eval.results import source_commit
from chatvla_eval.short_names import short_names
from chatvla_eval.statistics import mean_interval
from chatvla_eval.understanding.answers_table import answers_html
from chatvla_eval.understanding.benchmarks import benchmark_of, default_metric
from chatvla_eval.understanding.metrics import METRICS, score_of
from chatvla_eval.understanding.questions import Question, QuestionsError, read_questions

__all__ = ["asker", "evaluated", "main", "markdown", "write"]

RESULTS_NAME = "understanding.json"
_DIGITS = 6


class Asker(Protocol):
    """A policy that still chats."""

    def ask(self, question: str, images: Mapping[str, NDArray[np.uint8]] | None = None) -> str:
        """Return the answer to a question about images."""
        ...


def main(argv: Sequence[str]) -> int:
    """Ask and score; return 0, 1 on an error, 130 on Ctrl-C."""
    arguments = _parse(argv)
    answers = arguments.out / "answers.json"
    kept = ""

    def keep(found: Mapping[str, Any]) -> None:
        nonlocal kept
        arguments.out.mkdir(parents=True, exist_ok=True)
        kept = f"; the answers to whole files are in {_write_json(answers, found)}"

    try:
        results = evaluated(
            arguments.data,
            policy=arguments.policy,
            base=arguments.base,
            metric=arguments.metric or "",
            limit=arguments.limit,
            suffix=arguments.suffix,
            quiet=arguments.quiet,
            keep=keep,
        )
        print(write(arguments.out, results))
    except KeyboardInterrupt:
        print(f"understanding: stopped{kept}", file=sys.stderr)
        return 130
    except (PolicyUnavailableError, OSError, ValueError) as error:
        print(f"chatvla eval understanding: {error}{kept}", file=sys.stderr)
        return 1
    answers.unlink(missing_ok=True)
    print(f"results {arguments.out / RESULTS_NAME}")
    return 0


def write(folder: Path, results: Mapping[str, Any]) -> str:
    """Write understanding.md, .html and, last, .json into `folder`; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    page = markdown(results)
    write_pages(folder, "understanding", page, more=answers_html(results))
    _write_json(folder / RESULTS_NAME, results)
    return page


def asker(policy: str) -> Asker:
    """Return the checkpoint `policy` as something to ask. Raises PolicyUnavailableError, also when it cannot chat."""
    loaded = load_checkpoint_policy(policy)
    if not hasattr(loaded, "ask"):
        raise PolicyUnavailableError(f"policy {policy!r} answers no questions: its system has no language output")
    return loaded  # type: ignore[return-value]


def evaluated(
    files: Sequence[Path],
    *,
    policy: str,
    base: str = "",
    metric: str = "",
    limit: int = 0,
    suffix: str = "",
    quiet: bool = True,
    keep: Callable[[Mapping[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """Return answers and scores of each file; with `base`, those of the base model and what is retained of them.

    `limit` takes the first questions only (0: all); `suffix` is added to each question on a line of its own. `keep` is
    called with what there is whenever a model has answered a file, before anything is computed of the answers.
    Raises QuestionsError, UnknownMetricError, OSError and PolicyUnavailableError.
    """
    paths = list({path.resolve(): path for path in files}.values())
    sets = {name: read_questions(path)[: limit or None] for name, path in zip(short_names(paths), paths, strict=True)}
    # A benchmark is known by its file's name, not by the folder's.
    plain = {name: name.rpartition("/")[2] for name in sets}
    metrics = {name: metric or _metric(plain[name], questions) for name, questions in sets.items()}
    for name, questions in sets.items():
        _check_references(name, questions, metrics[name])
    found: dict[str, Any] = {
        "policy": policy_name(policy),
        "base": policy_name(base) if base else "",
        "commit": source_commit(),
    }
    found["sets"] = []
    askers = {"policy": asker(policy), **({"base": asker(base)} if base else {})}
    for name, questions in sets.items():
        used = metrics[name]
        entry: dict[str, Any] = {"file": name, "metric": used, "suffix": suffix, "n": len(questions)}
        known = benchmark_of(plain[name])
        if known is not None and known.metric == used and known.left_out:
            entry["left_out"] = known.left_out
        scores, told = {}, {}
        for who, model in askers.items():
            answers = _answers(model, questions, suffix=suffix, title=f"{name}, {who}", quiet=quiet)
            scores[who] = [
                score_of(used, said, asked.answers, category=asked.category, options=asked.options)
                for said, asked in zip(answers, questions, strict=True)
            ]
            told[f"{who}_answers"] = [
                {
                    "index": asked.name,
                    "question": asked.text,
                    "answer": said,
                    "references": list(asked.answers),
                    "score": score,
                }
                for asked, said, score in zip(questions, answers, scores[who], strict=True)
            ]
            keep({**found, "sets": [*found["sets"], entry | told]})
        found["sets"].append(entry | _statistics(scores) | told)
    return found


def _statistics(scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return mean scores by model and, with a base, what is retained of its."""
    entry: dict[str, Any] = {who: _rounded(asdict(mean_interval(of_model))) for who, of_model in scores.items()}
    if "base" in scores:
        entry["difference"] = _rounded(asdict(paired_difference(scores["base"], scores["policy"])))
        kept = _rounded(asdict(paired_ratio(scores["base"], scores["policy"])))
        entry["retention"] = kept["ratio"]
        entry["retention_interval"] = {"low": kept["low"], "high": kept["high"]}
    return entry


def markdown(results: Mapping[str, Any]) -> str:
    """Return the scores as a Markdown page."""
    lines = [f"# Understanding: {results['policy']}", ""]
    if results["base"]:
        lines += [
            f"Base: {results['base']}. Retention: score of the policy over that of the base, the same questions.",
            "",
        ]
        lines += ["| file | metric | n | policy | base | difference | retention |", "|---|---|---|---|---|---|---|"]
    else:
        lines += ["| file | metric | n | policy |", "|---|---|---|---|"]
    for entry in results["sets"]:
        cells = [entry["file"], entry["metric"], str(entry["n"]), _cell(entry["policy"])]
        if results["base"]:
            cells += [_cell(entry["base"]), _cell(entry["difference"]), _kept(entry)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Means in percent with 95% bootstrap intervals over questions. Commit {results['commit']}.", ""]
    for entry in results["sets"]:
        if "left_out" in entry:
            lines += [f"{entry['file']}: the benchmark's own score has more, left out here: {entry['left_out']}.", ""]
    return "\n".join(lines)


def _write_json(path: Path, content: Mapping[str, Any]) -> Path:
    return write_aside(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _metric(name: str, questions: Sequence[Question]) -> str:
    return "choice" if any(question.options for question in questions) else default_metric(name)


def _check_references(name: str, questions: Sequence[Question], metric: str) -> None:
    """Raise QuestionsError where references do not fit the metric: now, not after hours of answers."""
    for asked in questions:
        try:
            score_of(metric, "", asked.answers, category=asked.category)
        except ValueError as error:
            raise QuestionsError(f"{name}, question {asked.name}: {error}") from error


def _answers(model: Asker, questions: Sequence[Question], *, suffix: str, title: str, quiet: bool) -> list[str]:
    from tqdm import tqdm

    found = []
    for question in tqdm(questions, desc=title, unit="question", disable=quiet):
        text = f"{question.text}\n{suffix}" if suffix else question.text
        found.append(model.ask(text, question.pictures() or None).strip())
    return found


def _cell(interval: Mapping[str, Any]) -> str:
    if interval["mean"] is None:
        return "-"
    return f"{100 * interval['mean']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _kept(entry: Mapping[str, Any]) -> str:
    """Return the retention in percent with its interval, "-" where the base got nothing right."""
    if entry["retention"] is None:
        return "-"
    low, high = ("-" if end is None else f"{100 * end:.1f}" for end in entry["retention_interval"].values())
    return f"{100 * entry['retention']:.1f}% [{low}, {high}]"


def _rounded(interval: Mapping[str, float]) -> dict[str, float | None]:
    return {key: round(value, _DIGITS) if math.isfinite(value) else None for key, value in interval.items()}


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="chatvla eval understanding",
        description="Score answers to questions about images with benchmarks' metrics.",
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="LLaVA .json or VLMEvalKit .tsv files")
    parser.add_argument("--policy", type=filled, required=True, help="checkpoint folder or name")
    parser.add_argument("--base", default="", help="checkpoint before robot training, to say what is retained")
    parser.add_argument("--metric", type=one_of("metric", METRICS), help=f"of: {', '.join(METRICS)}")
    parser.add_argument("--limit", type=count, default=0, help="first questions of each file only")
    parser.add_argument("--suffix", default="", help='added to each question, such as "Answer with a single word."')
    parser.add_argument(
        "--out", type=filled_path, help="folder for the results (default: runs/understanding, or _2, ...)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_strictly(argv)
    arguments.out = arguments.out or free_folder(Path("runs/understanding"), RESULTS_NAME)
    parser.require_writable("--out", arguments.out, folder=True)
    return arguments
