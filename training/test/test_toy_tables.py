# SPDX-License-Identifier: Apache-2.0
"""The tables on the toy bench: their recipes, units, scenes, questions, numbers of the paper and pages."""

import json
from dataclasses import replace

import pytest
from chatvla_tables.cli import WORDS, main
from chatvla_tables.extras import LONGEST_ANSWER, write_questions
from chatvla_tables.gather import table_results
from chatvla_tables.needs import missing
from chatvla_tables.pages import table_page
from chatvla_tables.paper import PAPER_TASKS, points_of
from chatvla_tables.plan import EXTRAS, plan
from chatvla_tables.rows import CELLS, EVAL_SEED, ROWS
from chatvla_tables.settings import PlanSettings, cell_folder, cell_trials, stage_recipes
from chatvla_tables.sizes import SIZES, TASKS
from chatvla_tables.tables import ROUTER, TABLES

from chatvla_eval.results import RESULTS_NAME
from chatvla_eval.trial import trial_seed
from chatvla_eval.understanding.questions import read_questions
from chatvla_sim.toy_placement.trial import TRIAL_SPLITS, draw_trial
from chatvla_training.data import layout
from chatvla_training.demos.collect import ATTEMPTS, SEED_STRIDE
from chatvla_training.recipes import PLAN_DEMOS, PLANS, find_recipe
from chatvla_training.synthetic import toy_pool
from chatvla_training.synthetic.toy_trials import image_text_toy_trial

TOYS = "toy_placement"


def settings(folder, **changes):
    return PlanSettings(out=folder, size="tiny_toys", **changes)


def units_by_kind(names, asked):
    units = plan(names, asked)
    return {kind: [unit for unit in units if unit.kind == kind] for kind in {unit.kind for unit in units}}


def test_the_toys_are_the_task_of_their_size_with_the_papers_numbers_of_trials(tmp_path):
    assert set(TASKS) == set(SIZES)
    assert set(TASKS.values()) == set(PAPER_TASKS)
    asked = settings(tmp_path)
    assert asked.task == TOYS
    assert {name: cell_trials(cell, asked) for name, cell in CELLS.items()} == {
        "in_domain": 67,
        "open_world": 156,
        "in_domain_swapped": 67,
    }
    assert points_of(TOYS) == {"recognition": 2, "affordance": 1}
    assert points_of("math_match") == {"ocr": 4, "math": 2, "reasoning": 6}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WORDS.values())
def test_every_table_is_planned_at_every_size_on_its_own_task(tmp_path, size, name):
    task = TASKS[size]
    for unit in plan([name], PlanSettings(out=tmp_path, size=size)):
        words = unit.spec.get("arguments", ())
        others = {str(word) for word in words} & (set(TASKS.values()) - {task})
        assert not others, unit.key
        if unit.kind == "eval":
            assert words[0] == task
        if unit.kind in ("router", "counterfactual"):
            assert words[words.index("--task") + 1] == task
        if unit.kind == "latency":
            assert unit.spec["task"] == task


def test_all_five_systems_start_alike_on_the_same_toys(tmp_path):
    asked = settings(tmp_path)
    kinds = units_by_kind(["systems"], asked)
    firsts = [unit.spec for unit in kinds["train"] if "/0_" in unit.key]
    assert {spec["system"] for spec in firsts} == {"chatvla2", "chatvla1", "vlm2vla", "dense_film", "diffusion_policy"}
    assert {spec["init"] for spec in firsts} == {"runs/tiny_toys/tiny_toys_settle/policy", ""}
    (relabel,) = kinds["relabel"]
    assert relabel.spec["arguments"] == [
        "data/toy_placement",
        "--step",
        "1",
        "--limit",
        "1",
        "--decimals",
        "2",
        "--where",
    ]
    assert {unit.spec["data"] for unit in kinds["train"]} == {"data/toy_placement", str(relabel.folder)}
    assert {unit.spec["robot"] for unit in kinds["train"]} == {"franka"}
    assert {unit.amount for unit in kinds["eval"]} == {67, 156}
    assert len(kinds["eval"]) == 12
    assert (len(kinds["latency"]), len(kinds["understanding"])) == (5, 4)
    full, (diffusion,) = (stage_recipes(ROWS[name], asked, 0) for name in ("full", "diffusion_policy"))
    assert diffusion.steps * diffusion.batch == sum(recipe.steps * recipe.batch for recipe in full)


def test_what_has_no_meaning_for_toys_is_left_out(tmp_path):
    for name in ("table1", "systems"):
        assert TABLES[name].rows_at("tiny")[-1] == "chance"
        assert TABLES[name].rows_at("tiny_toys") == TABLES[name].rows_at("tiny")[:-1]
    assert not {"latter_bare", "no_module_bare"} & set(TABLES["table6"].rows_at("tiny_toys"))
    # Nobody has worded contradictory reasonings about toys.
    assert "counterfactual" in units_by_kind(["swap"], PlanSettings(out=tmp_path))
    assert "counterfactual" not in units_by_kind(["swap"], settings(tmp_path))


def test_all_tables_are_listed_in_a_dry_run_beside_those_of_another_size(tmp_path, capsys):
    words = ["all", "--out", str(tmp_path), "--start", "tiny_base", "--data", str(tmp_path), "--dry-run"]
    assert main([*words, "--size", "tiny_toys"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert any("156  evals/dense_film_s0/open_world" in line for line in listed)
    assert any(line.endswith("evals/router") for line in listed)
    # The expert's trials of the other size are in the way of none.
    folder = cell_folder(ROWS["expert"], PlanSettings(out=tmp_path), 0, CELLS["in_domain"])
    folder.mkdir(parents=True)
    found = {"complete": True, "trials": [{}] * 13, "seed": EVAL_SEED, "task": "math_match"}
    (folder / RESULTS_NAME).write_text(json.dumps(found))
    assert main([*words, "--size", "tiny"]) == 0
    assert main([*words, "--size", "tiny_toys"]) == 0
    assert main([*words, "--size", "tiny_toys", "--evals", str(tmp_path / "evals")]) == 2
    assert "holds trials of math_match, the size asked for has toy_placement" in capsys.readouterr().err


def test_no_evaluated_toys_are_those_of_demonstrations_or_dialogues(tmp_path):
    first = trial_seed(EVAL_SEED, 0)
    evaluated = range(first, first + max(PAPER_TASKS[TOYS].trials.values()))
    words = PLAN_DEMOS["data/toy_placement"]
    assert "--seed" not in words
    episodes = int(words[words.index("--episodes") + 1])
    assert (ATTEMPTS - 1) * SEED_STRIDE // 10 + episodes < evaluated[0]
    # A recording that would draw them is refused.
    data = tmp_path / "clash"
    (data / "meta").mkdir(parents=True)
    (data / layout.INFO_PATH).write_text("{}")
    (data / layout.PROVENANCE_PATH).write_text(json.dumps({"seed": evaluated[0] // SEED_STRIDE}))
    chosen = settings(tmp_path / "out", data=str(data), start="tiny_base")
    (said,) = missing(plan(["systems"], chosen), chosen)
    assert "shows the scenes of the evaluations" in said
    # Pictured scenes go by other numbers, and the same number gives another scene there than in a trial.
    pictured = {seed * toy_pool.SEED_STRIDE for seed in range(evaluated[0] // toy_pool.SEED_STRIDE)}
    assert max(pictured) + max(toy_pool.TOY_POOL_SIZES.values()) <= evaluated[0]
    for number in evaluated[:6]:
        shown = image_text_toy_trial(number)
        assert all(shown.things != draw_trial(split=split, seed=number).things for split in TRIAL_SPLITS)


def test_start_and_demonstrations_of_the_toys_are_named_with_what_makes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = settings(tmp_path / "out")
    start, data = missing(plan(["systems"], asked), asked)
    assert start.endswith(
        "; `./chatvla train tiny_toys` makes it, or give --start tiny_toys_base, which ships with the package"
    )
    assert "`./chatvla demos toy_placement --episodes 1200 --frame-hz 4 --out data/toy_placement` records them" in data


def test_questions_are_about_toys_short_and_each_stands_alone(tmp_path):
    kinds = units_by_kind(["systems", ROUTER], settings(tmp_path, trials=0.2))
    assert [(unit.folder.name, unit.spec) for unit in kinds["questions"]] == [
        ("questions", {"count": 40, "source": "toys_all"}),
        ("router_questions", {"count": 10, "source": "toys_all"}),
    ]
    (router,) = kinds["router"]
    assert router.spec["arguments"][-1] == str(tmp_path / "data" / "router_questions" / EXTRAS["questions"])
    questions = read_questions(write_questions(tmp_path / "asked", count=3, source="toys_all"))
    assert len(questions) == 3
    assert all(len(asked.answers[0]) <= LONGEST_ANSWER for asked in questions)
    # Without a picture the question tells what stands where.
    for source, tells in (("toys_told", " at ("), ("told", "")):
        told = read_questions(write_questions(tmp_path / source, count=8, source=source))
        assert not any(asked.images for asked in told)
        assert all(tells in asked.text and len(asked.text) > 60 for asked in told)


def write_cell(folder, row, cell, outcomes, recognition=2, affordance=1):
    where = cell_folder(ROWS[row], settings(folder), 0, CELLS[cell])
    where.mkdir(parents=True)
    points = {"recognition": recognition, "affordance": affordance, "link": ""}
    trials = [{"seed": number, "success": success, **points} for number, success in enumerate(outcomes)]
    (where / RESULTS_NAME).write_text(json.dumps({"complete": True, "commit": "a" * 40, "trials": trials}))


@pytest.mark.parametrize("name", ["systems", "table1"])
def test_page_has_the_measures_of_the_toys_and_the_papers_table_2(tmp_path, name):
    write_cell(tmp_path, "full", "open_world", [True] * 10)
    write_cell(tmp_path, "dense_film", "open_world", [True] + [False] * 9, recognition=1)
    write_cell(tmp_path, "diffusion_policy", "open_world", [True] * 10, recognition=0, affordance=0)
    found = table_results(name, settings(tmp_path), failed={})
    rows = {row["name"]: row["cells"] for row in found["rows"]}
    assert "chance" not in rows
    assert rows["full"]["open_world"]["recognition"]["of"] == 2
    assert "reasoning" not in rows["full"]["open_world"]
    assert rows["full"]["in_domain"]["paper"]["affordance"] == 0.99
    assert (found["task"], found["trials"]) == (TOYS, {"in_domain": 67, "open_world": 156})
    page = table_page(found, plot="x.svg")
    heads = "success | 95% | recognition of 2 | affordance of 1 | paper, real robot | against the first row |"
    assert page.count(heads) == 2
    assert "| 0 | 10/10 | 72–100% | 2.00 | 1.00 | 127/156, recognition 0.94 of 1, affordance 0.88 | - |" in page
    assert "| diffusion policy without language | 0 | 10/10 | 72–100% | - | - | 17/156 |" in page
    assert "open-world 156 and in-domain 67 trials, one training seed; its recognition is the mean over target" in page
    verdicts = {(claim["row"], claim["measure"]): claim["verdict"] for claim in found["claims"]}
    assert verdicts["dense_film", "success"] == verdicts["dense_film", "recognition"] == "shows"
    assert verdicts["dense_film", "affordance"] == verdicts["diffusion_policy", "success"] == "does not show"
    assert verdicts["chatvla1", "affordance"] == "not run"
    assert "Table 2: recognition 0.94 of 1 with the full method, 0.23 of 1 with dense + FiLM" in page
    assert not [word for word in ("OCR", "math", "Math", "card", "reasoning of") if word in page]


@pytest.mark.parametrize("name", [name for name in TABLES if name not in ("systems", "table1")])
def test_tables_that_the_paper_has_of_the_math_bench_alone_claim_nothing_of_toys(tmp_path, name):
    found = table_results(name, settings(tmp_path), failed={})
    assert not found["claims"]
    page = table_page(found, plot="x.svg")
    assert "Paper: no numbers of these rows on this task. Intervals" in page
    assert "What the paper finds" not in page
    assert not [word for word in ("OCR", "Cards", "their numbers stand at that row") if word in page]


SYSTEM_OF = {
    "tiny_toys_chatvla1_stage1": ("tiny_chatvla1_stage1", "stage1"),
    "tiny_toys_chatvla1_stage2": ("tiny_chatvla1_stage2", "stage1"),
    "tiny_toys_chatvla1_head": ("tiny_chatvla1_head", "stage2"),
    "tiny_toys_dense_film_stage1": ("tiny_dense_film_stage1", "stage1"),
    "tiny_toys_dense_film_stage2": ("tiny_dense_film_stage2", "stage2"),
}
"""Recipe of the math bench and the stage whose differences between the benches it shares."""


def differing(first, second):
    one, other = find_recipe(first).to_dict(), find_recipe(second).to_dict()
    return {key: value for key, value in one.items() if value != other[key]}


@pytest.mark.parametrize("name", SYSTEM_OF)
def test_a_system_changes_for_toys_what_the_toy_plan_changes_and_nothing_else(name):
    math, stage = SYSTEM_OF[name]
    theirs, own = differing(f"tiny_toys_{stage}", f"tiny_{stage}"), differing(name, math)
    free = {"name", "summary", "init", "steps"}
    same = {key: value for key, value in theirs.items() if key not in free}
    if not find_recipe(math).image_text:
        same.pop("image_text", None)
    assert {key: value for key, value in own.items() if key not in free} == same
    assert "steps" in own


def test_steps_and_starts_of_the_systems_follow_the_toy_plan():
    stage1, stage2 = find_recipe("tiny_toys_stage1"), find_recipe("tiny_toys_stage2")
    first, second, head = (find_recipe(name) for name in PLANS["tiny_toys_chatvla1"])
    assert first.steps + second.steps == stage1.steps
    assert head.steps == stage2.steps == find_recipe("tiny_toys_diffusion_policy").steps
    dense, last = (find_recipe(name) for name in PLANS["tiny_toys_dense_film"])
    assert (dense.steps, last.steps) == (stage1.steps, stage2.steps)
    vlm2vla = find_recipe("tiny_toys_vlm2vla")
    assert {first.init, dense.init, vlm2vla.init} == {stage1.init}
    assert vlm2vla.data == f"{stage1.data}_language"
    kept = {key: getattr(stage1, key) for key in ("robot", "cameras", "horizon")}
    plain = find_recipe("tiny_vlm2vla")
    assert replace(plain, name=vlm2vla.name, summary=vlm2vla.summary, init=vlm2vla.init, data=vlm2vla.data, **kept) == (
        vlm2vla
    )
    lists, of_math = find_recipe("tiny_toys_vlm2vla_lists"), find_recipe("tiny_vlm2vla_lists")
    assert lists.init == "runs/tiny_toys_vlm2vla/policy"
    kept |= {"name": lists.name, "summary": lists.summary, "init": lists.init, "data": vlm2vla.data}
    assert replace(of_math, **kept) == lists
    assert (first.image_text, second.image_text, dense.image_text) == ("", stage1.image_text, stage1.image_text)
    assert set(PLAN_DEMOS) == {"data/math_match", "data/toy_placement"}
