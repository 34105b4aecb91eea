# SPDX-License-Identifier: Apache-2.0
"""List the verbs of `./chatvla` in plain words: what each does, what it needs, where its code is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chatvla_cli.errors import UsageError

__all__ = ["VERBS", "Verb", "available_verbs", "find_verb", "nearest", "overview"]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One word after `./chatvla`."""

    name: str
    summary: str
    """One line in plain words."""
    usage: str
    """What follows the verb, as the help shows it."""
    details: str
    """A few lines of help that need no environment."""
    target: str
    """`module:function`, called with the list of arguments; returns the exit code."""
    source: str
    """File, relative to the repository, without which the verb does not exist."""
    layers: tuple[str, ...] = ("core",)
    """Lock layers beyond ROS itself that the verb needs before it starts."""
    model_words: str = ""
    """Pattern of an argument after which the verb needs the `model` layer too."""

    def needed_layers(self, arguments: Sequence[str]) -> tuple[str, ...]:
        """Return the lock layers that this call of the verb needs: torch only where a checkpoint is used."""
        line = " ".join(arguments)
        if self.model_words and "model" not in self.layers and re.search(self.model_words, line):
            return (*self.layers, "model")
        return self.layers


VERBS: tuple[Verb, ...] = (
    Verb(
        name="launch",
        summary="start a bench or a robot: simulator, driver, policy and scorer as ROS 2 nodes",
        usage="TASK [name:=value ...]",
        details="Example: ./chatvla launch math_match trials:=3\n"
        "TASK is the name of a graph in launch/graphs. 'TASK --help' lists its arguments. Ctrl-C stops everything.",
        target="chatvla_cli.launch_verb:main",
        source="src/chatvla_cli/chatvla_cli/launch_verb.py",
        # Without a policy a bench runs the checkpoint that comes with the package for its task.
        model_words=r"\bpolicy:=(?!expert\b)|^(?!.*\bpolicy:=)(?!.*\btask:=toy_sorting\b).*\b(math_match|toy_placement)\b",
    ),
    Verb(
        name="eval",
        summary="score a policy on a bench in one process, faster than real time, without ROS",
        usage="TASK --policy FOLDER|NAME|expert [--split S] [--trials N] [--seed K] [--out DIR] [--report]",
        details="Example: ./chatvla eval math_match --policy expert --trials 10 --out runs/expert\n"
        "Writes results.json, a summary and a film of one trial into the folder given by --out.\n"
        "Others: 'eval --bag BAG', 'eval counterfactual', 'eval understanding', 'eval router', each with --help.",
        target="chatvla_eval.cli:main",
        source="src/chatvla_eval/chatvla_eval/cli.py",
        model_words=r"--policy[ =](?!expert\b)",
    ),
    Verb(
        name="record",
        summary="record the topics that an evaluation needs into a rosbag2 bag",
        usage="[BAG] [options]",
        details="Example: ./chatvla record runs/bag\nThe bag opens with 'ros2 bag info' and 'ros2 bag play' too.",
        target="chatvla_eval.record_cli:main",
        source="src/chatvla_eval/chatvla_eval/record_cli.py",
    ),
    Verb(
        name="replay",
        summary="play a recorded bag back in its own time, or through a policy off line",
        usage="BAG [options]",
        details="Examples: ./chatvla replay runs/bag\n"
        "          ./chatvla replay runs/bag --policy CHECKPOINT --out runs/replay",
        target="chatvla_eval.replay_cli:main",
        source="src/chatvla_eval/chatvla_eval/replay_cli.py",
        model_words=r"--policy\b",
    ),
    Verb(
        name="demos",
        summary="record demonstrations by the scripted expert as a robot data set",
        usage="TASK --out DIR [--episodes N] [--seed K] [--jobs N]",
        details="Example: ./chatvla demos math_match --episodes 600 --out data/math_match\n"
        "LeRobot dataset layout, version 3.0. A stopped command goes on where it was.",
        target="chatvla_training.demos.cli:main",
        source="training/chatvla_training/demos/cli.py",
        layers=("core", "model"),
    ),
    Verb(
        name="relabel",
        summary="describe a robot data set in language: subtasks, plans and actions as text (VLM2VLA)",
        usage="DATA --out DIR [--step METRES] [--limit METRES] [--decimals N] [--where] [--starts N] [--pushed]",
        details="Example: ./chatvla relabel data/math_match --out data/math_match_language\n"
        "By rules from the robot's own motion; an endpoint words it when given. Then: ./chatvla train tiny_vlm2vla.",
        target="chatvla_training.vlm2vla.relabel:main",
        source="training/chatvla_training/vlm2vla/relabel.py",
        layers=("core", "model"),
    ),
    Verb(
        name="import-bag",
        summary="make episodes of a robot data set from a recorded bag, real or simulated",
        usage="BAG --out DIR [--robot NAME] [--namespace NAME]",
        details="Example: ./chatvla import-bag runs/bag --out data/from_bag\n"
        "Resampled to the control rate; gaps are reported and cut out.",
        target="chatvla_training.ros.import_bag:main",
        source="training/chatvla_training/ros/import_bag.py",
        layers=("core", "model"),
    ),
    Verb(
        name="train",
        summary="train a model by a recipe, on a CPU, a GPU or several",
        usage="RECIPE [--key value ...] [--out DIR]",
        details="Example: ./chatvla train stage1 --data data/math_match --image_text qa=data/qa.json\n"
        "'./chatvla train' alone lists recipes and keys. A stopped run goes on exactly where it was.",
        target="chatvla_training.train:main",
        source="training/chatvla_training/train.py",
        layers=("core", "model"),
    ),
    Verb(
        name="tables",
        summary="train and evaluate the rows of the paper's tables, with intervals, beside the paper's numbers",
        usage="TABLE [TABLE ...] --size tiny --out DIR [--seeds N]",
        details="Tables: 1, 3, 4, 5, 6, swap, frozen, systems, router; all is every one of them.\n"
        "Example: ./chatvla tables 6 swap --out runs/tables --dry-run\n"
        "A stopped command goes on where it was; --dry-run lists what it would do and the time it would take.",
        target="chatvla_tables.cli:main",
        source="training/chatvla_tables/cli.py",
        layers=("core", "model"),
    ),
    Verb(
        name="bench",
        summary="measure a figure of this machine: jitter, latency, real-time factor, model speed",
        usage="[NAME] [--json FILE] [options of the benchmark]",
        details="Example: ./chatvla bench node --minutes 10\n"
        "Without NAME it lists the benchmarks. --json writes the figures of the printed table into a file.",
        target="chatvla_cli.bench_verb:main",
        source="benchmarks/report.py",
        model_words=r"^(?!frame\b)[a-z]",
    ),
    Verb(
        name="torture",
        summary="try to break what docs/safety.md promises: faults of every kind, counted, with a seed",
        usage="[minutes] [--seed K] [--only PART ...] [--case N] [--json FILE]",
        details="Example: ./chatvla torture 20\n"
        "One line per promise. Exit code 1 at the first broken one, with the command that repeats it.",
        target="chatvla_torture.cli:main",
        source="src/chatvla_torture/chatvla_torture/cli.py",
        layers=("core", "model"),
    ),
    Verb(
        name="test",
        summary="run every test, or those that the pytest arguments name",
        usage="[pytest arguments]",
        details="Example: ./chatvla test -k chunk_player\nThe last line is pytest's own summary.",
        target="chatvla_cli.run_tests:main",
        source="src/chatvla_cli/chatvla_cli/run_tests.py",
        layers=("core", "model", "dev"),
    ),
    Verb(
        name="setup",
        summary="make or repair the environment now, and do nothing else",
        usage="",
        details="Libraries, ROS 2, torch and test tools go into .venv; our packages are built into install.",
        target="chatvla_cli.setup_verb:main",
        source="src/chatvla_cli/chatvla_cli/setup_verb.py",
        layers=("core", "model", "dev"),
    ),
)


def available_verbs(root: Path) -> dict[str, Verb]:
    """Return the verbs whose code is in this checkout, by name."""
    return {verb.name: verb for verb in VERBS if (root / verb.source).is_file()}


def find_verb(root: Path, name: str) -> Verb:
    """Return the verb called `name`; raise UsageError naming the nearest ones when there is none."""
    verbs = available_verbs(root)
    if name in verbs:
        return verbs[name]
    raise UsageError(f"there is no verb '{name}'{nearest(name, list(verbs))}. './chatvla --help' lists them all.")


def nearest(name: str, known: list[str]) -> str:
    """Return '; did you mean ...?' for the names closest to `name`, or what exists when none is close."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(f"'{word}'" for word in close) + "?"
    return "; there are " + ", ".join(sorted(known))


def overview(root: Path) -> str:
    """Return the text of `./chatvla --help`."""
    verbs = available_verbs(root).values()
    width = max(len(verb.name) for verb in verbs)
    lines = [
        "ChatVLA for ROS 2: a robot policy that reads, reasons and acts, with its benches and drivers.",
        "",
        "Usage: ./chatvla VERB [arguments]",
        "",
        *(f"  {verb.name:<{width}}  {verb.summary}" for verb in verbs),
        "",
        "'./chatvla VERB --help' says more about one. First steps:",
        "  ./chatvla launch math_match",
        "  ./chatvla test",
        "The first run makes an environment under .venv (a few minutes); later runs start at once.",
    ]
    return "\n".join(lines)
