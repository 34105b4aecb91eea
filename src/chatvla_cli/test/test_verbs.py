# SPDX-License-Identifier: Apache-2.0
"""torch is installed for a call of a verb that runs a checkpoint, and for no other."""

from __future__ import annotations

import pytest

from chatvla_cli.verbs import VERBS


@pytest.mark.parametrize(
    ("line", "model"),
    [
        ("launch math_match", True),
        ("launch math_match trials:=3 policy:=tiny", True),
        ("launch math_match policy:=expert trials:=3", False),
        ("launch toy_placement", True),
        ("launch toy_placement policy:=expert", False),
        ("launch toy_placement task:=toy_sorting", False),
        ("launch toy_placement policy:=runs/toys/policy", True),
        ("eval math_match --policy expert", False),
        ("eval math_match --policy tiny", True),
    ],
)
def test_a_call_needs_torch_only_to_run_a_checkpoint(line: str, model: bool) -> None:
    name, *arguments = line.split()
    verb = next(verb for verb in VERBS if verb.name == name)
    assert ("model" in verb.needed_layers(arguments)) is model
