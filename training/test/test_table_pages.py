# SPDX-License-Identifier: Apache-2.0
"""The tables' figures are put together rightly: seeds, pairs, claims, the paper's numbers, and pages that say them."""

import json

import pytest
from chatvla_tables.gather import table_results
from chatvla_tables.makers import TRAINED_IN
from chatvla_tables.page_parts import facts_lines
from chatvla_tables.pages import table_page, write_table
from chatvla_tables.plan import EXTRAS
from chatvla_tables.rows import CELLS, ROWS
from chatvla_tables.settings import PlanSettings, cell_folder
from chatvla_tables.sizes import SIZES
from chatvla_tables.unit import main as do_unit

from chatvla_eval.results import RESULTS_NAME
from chatvla_training.recipes import find_recipe


def settings(folder, **changes):
    return PlanSettings(out=folder, **changes)


def write_cell(folder, row, seed, cell, outcomes, ocr=4, math=2):
    where = cell_folder(ROWS[row], settings(folder), seed, CELLS[cell])
    where.mkdir(parents=True)
    trials = [
        {
            "seed": k,
            "success": success,
            "ocr": ocr,
            "math": math,
            "link": "" if success else "execution",
            "cards": [1, 2, 3, 4],
        }
        for k, success in enumerate(outcomes)
    ]
    (where / RESULTS_NAME).write_text(json.dumps({"complete": True, "commit": f"{'a' * 40}-dirty", "trials": trials}))
    return where


def test_table_pools_seeds_pairs_trials_and_judges_the_papers_claim(tmp_path):
    for seed in (0, 1):
        write_cell(tmp_path, "full", seed, "open_world", [True] * 9 + [False])
        write_cell(tmp_path, "inject_former", seed, "open_world", [False] * 9 + [True])
    write_cell(tmp_path, "inject_all", 0, "open_world", [True] * 9 + [False])
    found = table_results("table6", settings(tmp_path, seeds=2), failed={})
    rows = {row["name"]: row["cells"]["open_world"] for row in found["rows"]}
    assert (rows["full"]["success"]["k"], rows["full"]["success"]["n"], rows["full"]["per_seed"]) == (18, 20, [9, 9])
    assert rows["inject_former"]["against_reference"]["success"]["only_first"] == 18
    assert rows["inject_former"]["links"] == {"execution": 18}
    assert rows["full"]["paper"]["success"] == {"k": 43, "n": 52}
    assert {claim["row"]: claim["verdict"] for claim in found["claims"]} == {
        "inject_all": "does not show",
        "inject_former": "shows",
    }
    page = table_page(found, plot="x.svg")
    assert "| reasoning in the former half | 0, 1 | 2/20 (1, 1) |" in page
    assert "| reasoning in all layers | 0 | 9/10 |" in page
    assert "not run: no complete evaluation" in page
    assert "43/52, OCR 3.58, math 1.73" in page
    assert f"evaluations {'a' * 12}-dirty." in page
    first, second = (find_recipe(SIZES["tiny"][stage]) for stage in ("stage1", "stage2"))
    samples = first.steps * first.batch + second.steps * second.batch
    assert f"{second.name} {second.steps} x {second.batch} | {samples} | conditioning=former_half |" in page
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "table6_tiny_notes.md").write_text("Longer training, no change.\n")
    for _ in range(2):
        written = write_table(tmp_path / "docs", found)
    assert written.name == "table6_tiny.md"
    assert written.read_text().count("## What was tried\n\nLonger training, no change.\n") == 1


def test_trials_are_paired_by_their_training_seed_when_one_failed(tmp_path):
    write_cell(tmp_path, "full", 0, "open_world", [True] * 10)
    write_cell(tmp_path, "full", 1, "open_world", [False] * 10)
    write_cell(tmp_path, "dense", 1, "open_world", [False] * 10)
    found = table_results("table3", settings(tmp_path, seeds=2), failed={})
    rows = {row["name"]: row["cells"]["open_world"] for row in found["rows"]}
    assert rows["dense"]["seeds"] == [1]
    test = rows["dense"]["against_reference"]
    assert (test["n"], test["success"]["only_first"], test["success"]["neither"]) == (10, 0, 10)


def test_each_claim_is_judged_by_its_own_measure(tmp_path):
    write_cell(tmp_path, "full", 0, "open_world", [True] * 10)
    write_cell(tmp_path, "experts_6_3", 0, "open_world", [True] * 10, ocr=1)
    write_cell(tmp_path, "experts_4_2", 0, "open_world", [False] * 10)
    found = table_results("table5", settings(tmp_path), failed={})
    verdicts = {(claim["row"], claim["measure"]): claim["verdict"] for claim in found["claims"]}
    assert verdicts == {
        ("experts_6_3", "ocr"): "shows",
        ("experts_6_3", "math"): "does not show",
        ("experts_4_2", "ocr"): "does not show",
        ("experts_4_2", "math"): "does not show",
    }
    assert "Table 5: OCR 3.58 with the full method, 2.42 with 6 experts, top 3. Here it **shows**" in table_page(
        found, plot=""
    )


def test_swap_compares_how_deep_each_row_falls_and_how_chunks_follow_a_forced_text(tmp_path):
    for row, after in (("full", 9), ("no_module", 1)):
        write_cell(tmp_path, row, 0, "in_domain", [True] * 10)
        write_cell(tmp_path, row, 0, "in_domain_swapped", [True] * after + [False] * (10 - after))
        where = tmp_path / "evals" / f"{row}_s0" / "counterfactual"
        (tmp_path / "spec.json").write_text(
            json.dumps({"arguments": ["--policy", "expert", "--frames", "1", "--quiet", "--out", str(where)]})
        )
        assert do_unit(["counterfactual", str(where), str(tmp_path / "spec.json")]) == 0
    found = table_results("swap", settings(tmp_path), failed={})
    (claim,) = found["claims"]
    assert claim["verdict"] == "shows"
    assert (claim["reference"]["after"], claim["own"]["before"], claim["own"]["after"]) == (9, 10, 1)
    assert claim["own"]["p"] < 0.05 < claim["reference"]["p"]
    assert claim["difference"]["difference"] == pytest.approx(0.8)
    page = table_page(found, plot="")
    assert "the first row goes from 10/10 to 9/10" in page
    assert page.count("| 1/1 | 21–100% | 1/1 |") == 2
    assert "Flips of full alone 0, of no_module alone 0, of both 1: p = 1 (McNemar)." in page


def test_chance_is_computed_and_rows_that_were_not_run_say_so(tmp_path):
    write_cell(tmp_path, "expert", 0, "open_world", [True] * 8)
    found = table_results("table1", settings(tmp_path), failed={})
    rows = {row["name"]: row["cells"]["open_world"] for row in found["rows"]}
    assert rows["chance"]["expected"] == {"successes": 2.0, "n": 8}
    page = table_page(table_results("table1", settings(tmp_path), failed={}), plot="x.svg")
    assert "not run: no complete evaluation" in page
    assert "11/13, reasoning 6.0 of 6" in page
    assert "| row | seeds | success | 95% | OCR of 4 | math of 2 | reasoning of 6 | paper, real robot | " in page
    assert "Paper: real robot; open-world 52 and in-domain 13 trials, one training seed. Intervals" in page


def test_a_page_says_where_rows_saw_different_recordings(tmp_path):
    for row, sha256 in (("full", "a" * 64), ("frozen", "b" * 64)):
        where = write_cell(tmp_path, row, 0, "open_world", [True])
        stages = [{"commits": [], "data": {"math_match:train": sha256, "synthetic:all": "c" * 64}}] * 2
        (where / TRAINED_IN).write_text(json.dumps(stages))
    found = table_results("frozen", settings(tmp_path), failed={})
    assert found["settings"]["data_sha256"]["math_match:train"] == {"a" * 64: ["full_s0"], "b" * 64: ["frozen_s0"]}
    said = "**Not all rows were trained on the same recording of math_match:train** (SHA-256 aaaaaaaaaaaa: full_s0; "
    (bold,) = [line for line in facts_lines(found) if line.startswith("**")]
    assert bold == f"{said}bbbbbbbbbbbb: frozen_s0)."


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1.0, ""),
        (0.099, "**Steps are 0.099 times the recipes': a trial of the machinery, no result.**"),
        (0.1, "**All rows have 0.1 times the recipes' steps: less training than the shipped checkpoint's.**"),
        (0.5, "**All rows have 0.5 times the recipes' steps: less training than the shipped checkpoint's.**"),
        (2.0, "**All rows have 2 times the recipes' steps: more training than the shipped checkpoint's.**"),
    ],
)
def test_a_page_says_how_far_its_steps_are_from_the_recipes(tmp_path, factor, said):
    found = table_results("frozen", settings(tmp_path, steps=factor), failed={})
    bold = [line for line in facts_lines(found) if line.startswith("**")]
    assert bold == ([said] if said else [])


def test_page_of_the_systems_shows_what_is_retained_and_how_long_a_decision_takes(tmp_path):
    write_cell(tmp_path, "full", 0, "open_world", [True] * 9 + [False])
    asked = {
        "n": 200,
        "policy": {"mean": 0.6},
        "base": {"mean": 0.8},
        "retention": 0.75,
        "retention_interval": {"low": 0.6, "high": None},
        "difference": {"low": -0.3, "high": -0.1},
    }
    for kind, content in (("understanding", {"sets": [asked]}), ("latency", {"first_s": 1.25, "next_s": 0.1})):
        folder = tmp_path / "evals" / "full_s0" / kind
        folder.mkdir(parents=True)
        (folder / EXTRAS[kind]).write_text(json.dumps(content))
    page = table_page(table_results("systems", settings(tmp_path), failed={}), plot="x.svg")
    assert "| 60.0% of 200 | 80.0% of 200 | 75% [60, -] | -30 to -10 points | 1.25 | 0.10 |" in page
    assert "| ChatVLA-2: dynamic experts 8/2, latter half | 0 | 9/10 |" in page
    assert "43/52, OCR 3.58, math 1.73" in page
    assert "success 43/52 with the full method, 4/52 with ChatVLA-1: static experts. Here: **not run**." in page
