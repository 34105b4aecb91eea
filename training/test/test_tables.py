# SPDX-License-Identifier: Apache-2.0
"""The tables' machinery: rows share what they share, a stopped run goes on, figures are put together rightly."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from chatvla_tables.cli import main
from chatvla_tables.execute import Rates, estimate, execute
from chatvla_tables.gather import table_results
from chatvla_tables.makers import write_maker
from chatvla_tables.pages import table_page, write_table
from chatvla_tables.paper import PAPER
from chatvla_tables.plan import EXTRAS, PlanSettings, Unit, cell_folder, plan, spared, stage_recipes
from chatvla_tables.rows import CELLS, ROUTER, ROWS, SIZES, TABLES

from chatvla_eval.results import RESULTS_NAME
from chatvla_eval.understanding.questions import read_questions
from chatvla_policy.systems.untrained import save_untrained

ALL = [*TABLES, ROUTER]


def settings(folder, **changes):
    return PlanSettings(out=folder, **changes)


def test_every_row_of_every_table_exists_and_the_papers_cells_belong_to_one():
    for table in TABLES.values():
        assert {table.reference, *table.claims} <= set(table.rows) <= set(ROWS)
        assert set(table.cells) <= set(CELLS)
    for name, row, cell in PAPER:
        assert row in TABLES[name].rows
        assert cell in TABLES[name].cells


def test_rows_differ_from_the_full_method_in_what_they_say_and_in_nothing_else(tmp_path):
    full = [recipe.to_dict() for recipe in stage_recipes(ROWS["full"], settings(tmp_path), 0)]
    for name in ("static+dynamic", "dense", "experts_6_3", "inject_all", "no_module", "frozen"):
        row = ROWS[name]
        for index, recipe in enumerate(stage_recipes(row, settings(tmp_path), 0)):
            differs = {key for key, value in recipe.to_dict().items() if value != full[index][key]} - {"init"}
            assert differs == set(row.stages[index][1]), (name, index)


def test_units_come_once_each_after_what_they_need(tmp_path):
    units = plan(ALL, settings(tmp_path, seeds=2))
    keys = [unit.key for unit in units]
    assert len(set(keys)) == len(keys)
    for place, unit in enumerate(units):
        assert set(unit.after) <= set(keys[:place])
    trained = [unit.folder.parent.name for unit in units if unit.kind == "train"]
    # Stage 1 alone is the full method's own stage 1: it is not trained twice.
    assert "stage1_only_s0" not in trained
    assert trained.count("full_s0") == trained.count("full_s1") == 2


def test_paper_scale_is_planned_with_the_papers_recipes(tmp_path):
    units = plan(["table3"], settings(tmp_path, size="qwen2vl_2b"))
    stages = [unit.spec["name"] for unit in units if unit.kind == "train" and "full" in unit.key]
    assert stages == ["stage1", "stage2"]
    assert SIZES["qwen2vl_2b"]["stage1"] == "stage1"


def test_estimate_names_what_was_never_measured(tmp_path):
    def unit(name, rate_key, amount):
        return Unit(key=name, kind="train", folder=tmp_path / name, after=(), amount=amount, rate_key=rate_key, spec={})

    rates = Rates(tmp_path / "rates.json")
    units = [unit("a", "slow", 100), unit("b", "slow", 50), unit("c", "new", 10)]
    assert "3 units left, 3 whose 2 kinds were never measured" in estimate(units, rates, 1)
    rates.add(units[0], 400.0)
    again = Rates(tmp_path / "rates.json")
    assert again.seconds(units[1]) == pytest.approx(200.0)
    assert "about 5 min and 1 whose 1 kinds" in estimate(units, again, 2)


def write_cell(folder, row, seed, cell, outcomes):
    where = cell_folder(ROWS[row], settings(folder), seed, CELLS[cell])
    where.mkdir(parents=True)
    trials = [
        {
            "seed": k,
            "success": success,
            "ocr": 4,
            "math": 2,
            "link": "" if success else "execution",
            "cards": [1, 2, 3, 4],
        }
        for k, success in enumerate(outcomes)
    ]
    (where / RESULTS_NAME).write_text(json.dumps({"complete": True, "trials": trials}))


def test_table_pools_seeds_pairs_trials_and_judges_the_papers_claim(tmp_path):
    for seed in (0, 1):
        write_cell(tmp_path, "full", seed, "open_world", [True] * 9 + [False])
        write_cell(tmp_path, "inject_former", seed, "open_world", [False] * 9 + [True])
    write_cell(tmp_path, "inject_all", 0, "open_world", [True] * 9 + [False])
    found = table_results("table6", settings(tmp_path, seeds=2), hours=1.0, failed={})
    rows = {row["name"]: row["cells"]["open_world"] for row in found["rows"]}
    assert (rows["full"]["success"]["k"], rows["full"]["success"]["n"], rows["full"]["per_seed"]) == (18, 20, [9, 9])
    assert rows["inject_former"]["against_reference"]["success"]["only_first"] == 18
    assert rows["inject_former"]["links"] == {"execution": 18}
    assert rows["full"]["paper"]["success"] == {"k": 43, "n": 52}
    assert {claim["row"]: claim["verdict"] for claim in found["claims"]} == {
        "inject_all": "does not show",
        "inject_former": "shows",
        "no_module": "not run",
    }
    page = table_page(found, plot="x.svg")
    assert "| reasoning in the former half | 2/20 (1, 1) |" in page
    assert "not run: no complete evaluation" in page
    assert "43/52, OCR 3.58, math 1.73" in page
    assert write_table(tmp_path / "docs", found).name == "table6_tiny.md"


def test_chance_is_computed_and_absent_rows_say_why(tmp_path):
    write_cell(tmp_path, "expert", 0, "open_world", [True] * 8)
    found = table_results("table1", settings(tmp_path), hours=0.0, failed={})
    rows = {row["name"]: row["cells"]["open_world"] for row in found["rows"]}
    assert rows["chance"]["expected"] == {"successes": 2.0, "n": 8}
    page = table_page(table_results("table3", settings(tmp_path), hours=0.0, failed={}), plot="x.svg")
    assert "not run: a larger dense model needs" in page


def test_a_failed_unit_leaves_out_what_needs_it_and_nothing_else(tmp_path):
    def unit(name, spec, after=()):
        folder = tmp_path / "evals" / name / "open_world"
        return Unit(key=str(folder), kind="eval", folder=folder, after=after, amount=1, rate_key=name, spec=spec)

    bad = unit("bad_s0", {"arguments": ["math_match", "--policy", "nowhere", "--quiet", "--no-film"]})
    after = unit("after_s0", {}, after=(bad.key,))
    good_folder = tmp_path / "evals" / "expert_s0" / "open_world"
    words = ["math_match", "--trials", "1", "--jobs", "1", "--no-film", "--quiet", "--out", str(good_folder)]
    good = unit("expert_s0", {"arguments": words})
    failed = execute([bad, after, good], jobs=2, folder=tmp_path, quiet=True)
    assert set(failed) == {bad.key, after.key}
    assert "nowhere" in failed[bad.key]
    assert failed[after.key].startswith("left out")
    assert good.done


def test_kept_evaluations_spare_their_trainings_and_are_refused_for_other_recipes_or_trials(tmp_path):
    asked = settings(tmp_path / "out", evals=tmp_path / "kept")
    for unit in plan(["table4"], asked):
        if unit.kind == "eval":
            write_maker(unit.folder, unit.made_by)
            (unit.folder / RESULTS_NAME).write_text(json.dumps({"complete": True, "trials": [{}] * unit.amount}))
    units = plan(["table4"], asked)
    assert spared(units) == {unit.key for unit in units if unit.kind == "train"}
    assert estimate(units, Rates(tmp_path / "rates.json"), 1) == "nothing left"
    with pytest.raises(ValueError, match="holds 52 trials, 26 are asked for"):
        plan(["table4"], replace(asked, trials=0.5))
    lost = next(unit for unit in units if unit.kind == "eval" and "stage2_only" in unit.key)
    (lost.folder / RESULTS_NAME).unlink()
    units = plan(["table4"], asked)
    kept = {unit.folder.parent.name for unit in units if unit.kind == "train" and unit.key in spared(units)}
    assert kept == {"full_s0"}
    with pytest.raises(ValueError, match=r"other recipes \(tiny_stage1.steps"):
        plan(["table4"], replace(asked, steps=0.5))


def test_systems_are_compared_on_the_same_data_and_asked_for_understanding_and_time(tmp_path):
    units = plan(["systems"], settings(tmp_path))
    by_kind = {kind: [unit for unit in units if unit.kind == kind] for kind in {unit.kind for unit in units}}
    (relabel,) = by_kind["relabel"]
    (adapters,) = [unit for unit in by_kind["train"] if unit.spec["system"] == "vlm2vla"]
    assert adapters.after == (relabel.key,)
    assert adapters.spec["data"] == str(relabel.folder)
    assert len({unit.spec["init"] for unit in by_kind["train"] if "/0_" in unit.key and unit.spec["init"]}) == 1
    assert len(by_kind["latency"]) == 5
    assert all(unit.alone for unit in by_kind["latency"])
    # The diffusion policy reads no language: nothing can be retained.
    assert len(by_kind["understanding"]) == 4


def test_what_measures_time_runs_alone_and_last(tmp_path):
    def unit(name, kind, spec):
        folder = tmp_path / "evals" / name
        return Unit(
            key=name, kind=kind, folder=folder, after=(), amount=1, rate_key=kind, spec=spec, alone=kind == "latency"
        )

    timed = unit("timed", "latency", {"policy": "expert", "task": "math_match", "scenes": 1})
    beside = [unit(f"asked{number}", "questions", {"count": 3}) for number in range(2)]
    assert execute([timed, *beside], jobs=2, folder=tmp_path, quiet=True) == {}
    proofs = [item.folder / EXTRAS[item.kind] for item in (*beside, timed)]
    began = [(tmp_path / "logs" / f"evals_{item.folder.name}.json").stat().st_mtime for item in (*beside, timed)]
    assert began[2] > max(proof.stat().st_mtime for proof in proofs[:2])
    assert json.loads(proofs[2].read_text())["first_s"] > 0
    questions = read_questions(proofs[0])
    assert len(questions) == 3
    assert all(len(asked.answers[0]) <= 24 for asked in questions)
    assert proofs[0].read_text() == proofs[1].read_text(), "the questions depend on more than their number"


def test_page_of_the_systems_shows_what_is_retained_and_how_long_a_decision_takes(tmp_path):
    write_cell(tmp_path, "full", 0, "open_world", [True] * 9 + [False])
    asked = {
        "n": 200,
        "policy": {"mean": 0.6},
        "base": {"mean": 0.8},
        "retention": 0.75,
        "difference": {"low": -0.3, "high": -0.1},
    }
    for kind, content in (("understanding", {"sets": [asked]}), ("latency", {"first_s": 1.25, "next_s": 0.1})):
        folder = tmp_path / "evals" / "full_s0" / kind
        folder.mkdir(parents=True)
        (folder / EXTRAS[kind]).write_text(json.dumps(content))
    page = table_page(table_results("systems", settings(tmp_path), hours=1.0, failed={}), plot="x.svg")
    assert "| 60% of 200 | 80% of 200 | 75% | -30 to -10 points | 1.25 | 0.10 |" in page
    assert "What the paper finds" not in page


@pytest.mark.slow
def test_table_from_nothing_in_a_few_steps_and_again_at_once(tmp_path, arm_data: Path, llava_file: Path, capsys):
    save_untrained(tmp_path / "start", robot="arx_r5", max_tokens=8)
    words = ["4", "--out", str(tmp_path / "out"), "--start", str(tmp_path / "start"), "--data", str(arm_data)]
    small = {"batch": 2, "micro_batch": 2, "image_text": f"qa={llava_file}", "objective": "vla", "moe": "keep"}
    small |= {"validate_every": 0, "frame_every": 1, "balance_weight": 0.0}
    words += ["--steps", "0.003", "--trials", "0.02", "--jobs", "2", "--quiet"]
    words += ["--set", *(f"{key}={value}" for key, value in small.items())]
    code = main(words)
    said = capsys.readouterr()
    assert code == 0, said.err
    results = json.loads((tmp_path / "out" / "results" / "table4_tiny.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["full", "stage1_only", "stage2_only"]
    assert all(row["cells"]["open_world"]["success"]["n"] == 1 for row in results["rows"])
    assert "no result" in (tmp_path / "out" / "results" / "table4_tiny.md").read_text()
    assert main(words) == 0
    assert "nothing left" in capsys.readouterr().out
