# SPDX-License-Identifier: Apache-2.0
"""The verb `bench`: help of a benchmark, and refusal before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatvla_cli.main import run_verb


@pytest.mark.parametrize("words", [["node", "--help"], ["-h", "node"]])
def test_help_of_a_benchmark_lists_its_own_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_verb("bench", words)
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "./chatvla bench node" in text
    assert {"--json", "--minutes", "--checkpoint"} <= set(text.replace("]", " ").replace("[", " ").split())


def test_help_without_a_name_is_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("bench", ["--help"]) == 0
    assert "--json FILE" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["file/x.json", "."])
def test_a_file_that_cannot_be_written_is_refused_before_measuring(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run_verb("bench", ["frame", "--json", str(tmp_path / place)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("chatvla bench: --json ")
    assert said.err.endswith("; name another file\n")


def test_figures_go_into_a_folder_that_is_made(tmp_path: Path) -> None:
    assert run_verb("bench", ["frame", "--json", str(tmp_path / "new" / "x.json")]) == 0
    assert (tmp_path / "new" / "x.json").stat().st_size > 0


@pytest.mark.parametrize("words", [["--minutes", "-1"], ["--pictures", "0"]])
def test_counts_that_measure_nothing_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_verb("bench", ["node", *words])
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err
