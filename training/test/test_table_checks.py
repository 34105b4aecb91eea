# SPDX-License-Identifier: Apache-2.0
"""Tables refuse figures of other inputs or other data, and fields that would be the same for every row."""

import json

import pytest
from chatvla_tables.cli import main
from chatvla_tables.makers import check_asked, check_relabelled
from chatvla_tables.rows import EVAL_SEED

from chatvla_training.data import layout
from chatvla_training.data.episodes import data_set_sha256


@pytest.mark.parametrize(
    ("content", "amount"),
    [
        ({"models": [{"kinds": {"understanding": {"inputs": 52}, "robot": {"inputs": 52}}}], "seed": EVAL_SEED}, 104),
        ({"sets": [{"n": 200}]}, 400),
        ([{}] * 200, 200),
        ({"scenes": 9, "seed": EVAL_SEED}, 9),
    ],
)
def test_figures_of_another_number_of_inputs_are_refused_whatever_the_kind(tmp_path, content, amount):
    (tmp_path / "found.json").write_text(json.dumps(content))
    check_asked(tmp_path / "found.json", EVAL_SEED, amount, "math_match")
    with pytest.raises(ValueError, match=f"holds {amount} trials or questions, 5 are asked for"):
        check_asked(tmp_path / "found.json", EVAL_SEED, 5, "math_match")


def test_language_of_other_robot_data_is_refused(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "meta").mkdir(parents=True)
        (tmp_path / name / layout.PROVENANCE_PATH).write_text(json.dumps({"files": {"a": name}}))
    (tmp_path / "info.json").write_text(json.dumps({"source": {"sha256": data_set_sha256(tmp_path / "one")}}))
    check_relabelled(tmp_path, str(tmp_path / "one"))
    with pytest.raises(ValueError, match="was written of other robot data than"):
        check_relabelled(tmp_path, str(tmp_path / "other"))


@pytest.mark.parametrize(("key", "option"), [("init", "--start"), ("seed", "--seeds"), ("steps", "--steps")])
def test_fields_that_rows_set_themselves_are_asked_for_by_their_options(tmp_path, capsys, key, option):
    assert main(["6", "--out", str(tmp_path), "--set", f"{key}=1", "--dry-run"]) == 2
    assert f"--set {key} would be the same for every stage and seed of a row; give {option}" in capsys.readouterr().err
