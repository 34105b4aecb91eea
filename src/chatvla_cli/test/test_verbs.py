# SPDX-License-Identifier: Apache-2.0
"""torch is installed for a call of a verb that runs a checkpoint, and for no other."""

from __future__ import annotations

import pytest

from chatvla_cli.main import run_verb
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


def test_setup_explains_itself_and_takes_no_other_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("setup", ["--help"]) == 0
    assert "go into .venv" in capsys.readouterr().out
    assert run_verb("setup", ["nonsense"]) == 2
    assert "takes no arguments, not 'nonsense'" in capsys.readouterr().err
