# SPDX-License-Identifier: Apache-2.0
"""Check `name:=value` words against what a graph declares, and describe what exists."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

from chatvla_cli.errors import UsageError
from chatvla_cli.launch_graph import LaunchArgument
from chatvla_cli.verbs import nearest

__all__ = ["describe", "given_values"]

NAMESPACE = re.compile(r"/?|/?[a-z_]\w*(/[a-z_]\w*)*", re.ASCII | re.IGNORECASE)
LONGEST_NAMESPACE = 200
"""ROS allows 245 characters and names of 247: this leaves room for the topics."""
LARGEST_SEED = 10**12
"""What rollout_node takes; sim_node takes more."""
WIDEST_DEG = 170.0


def given_values(words: Sequence[str], arguments: Sequence[LaunchArgument]) -> dict[str, str]:
    """Return the values in `words`; raise UsageError for a name or a value that does not exist."""
    declared = {argument.name: argument for argument in arguments}
    values: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator:
            raise UsageError(f"'{word}' is not of the form name:=value\n{describe(arguments)}")
        if name not in declared:
            raise UsageError(f"there is no argument '{name}'{nearest(name, list(declared))}\n{describe(arguments)}")
        choices = declared[name].choices
        if choices and value not in choices:
            raise UsageError(f"'{value}' is no value of '{name}'{nearest(value, list(choices))}")
        if name in CHECKS:
            CHECKS[name](value)
        values[name] = value
    absent = [argument.name for argument in arguments if argument.default is None and argument.name not in values]
    if absent:
        raise UsageError(f"'{absent[0]}' must be given: {absent[0]}:=value\n{describe(arguments)}")
    return values


def describe(arguments: Sequence[LaunchArgument]) -> str:
    """Return the list of arguments, one a paragraph: name, values, default, description."""
    lines = ["Arguments (name:=value):"]
    for argument in arguments:
        values = " | ".join(argument.choices) or "..."
        default = "must be given" if argument.default is None else f"default: {argument.default or 'empty'}"
        if "$(" in default:
            default = "default: goes with the other arguments"
        lines.append(f"  {argument.name}:={values}   ({default})")
        lines += textwrap.wrap(argument.description, 110, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _check_namespace(value: str) -> None:
    if not NAMESPACE.fullmatch(value) or "__" in value or len(value) > LONGEST_NAMESPACE:
        raise UsageError(
            f"'{value}' is no ROS namespace: between slashes it has letters, digits and single underscores, no digit "
            f"first, and at most {LONGEST_NAMESPACE} characters in all; give one such as my_bench or lab/bench_2"
        )


def _check_seed(value: str) -> None:
    try:
        fits = 0 <= int(value) <= LARGEST_SEED
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(f"'{value}' is no seed: it is a whole number from 0 to {LARGEST_SEED}; give one such as 100")


def _check_trials(value: str) -> None:
    if not re.fullmatch(r"\+?\d+", value, re.ASCII):
        raise UsageError(
            f"'{value}' is no number of trials: it is a whole number; 0 scores nothing; give one such as 3"
        )


def _check_view_height(value: str) -> None:
    try:
        fits = 0.0 <= float(value) <= WIDEST_DEG
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(
            f"'{value}' is no height of a view: it is 0 to {WIDEST_DEG:g} degrees; 0 takes the whole height"
        )


CHECKS: Mapping[str, Callable[[str], None]] = {
    "namespace": _check_namespace,
    "seed": _check_seed,
    "trials": _check_trials,
    "view_height_deg": _check_view_height,
}
"""Arguments whose text must fit before anything starts -> what raises UsageError when it does not."""
