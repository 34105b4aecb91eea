# SPDX-License-Identifier: Apache-2.0
"""The tables' machinery: rows share what they share, a stopped run goes on, figures are put together rightly."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chatvla_tables.cli import main
from chatvla_tables.execute import HOURS, RATES, execute
from chatvla_tables.makers import write_maker
from chatvla_tables.needs import missing
from chatvla_tables.paper import PAPER
from chatvla_tables.plan import EXTRAS, Unit, plan, spared, unit_name
from chatvla_tables.rates import Hours, Rates, estimate
from chatvla_tables.rows import CELLS, EVAL_SEED, ROWS
from chatvla_tables.settings import PlanSettings, stage_recipes
from chatvla_tables.sizes import SIZES, TASKS
from chatvla_tables.step0 import save_step0
from chatvla_tables.tables import ROUTER, TABLES
from chatvla_tables.unit import main as do_unit

from chatvla_control.robot_spec import robot_spec
from chatvla_eval.results import RESULTS_NAME
from chatvla_eval.trial import trial_seed
from chatvla_eval.understanding.questions import read_questions
from chatvla_policy.systems.untrained import save_untrained
from chatvla_training.build_model import start_model
from chatvla_training.data import layout
from chatvla_training.demos.collect import SEED_STRIDE

ALL = [*TABLES, ROUTER]


def settings(folder, **changes):
    return PlanSettings(out=folder, **changes)


def test_every_row_of_every_table_exists_and_the_papers_cells_belong_to_one():
    for table in TABLES.values():
        assert set(table.rows) <= set(ROWS)
        assert set(table.cells) <= set(CELLS)
        assert set(table.claims) <= set(TASKS.values())
        for size, task in TASKS.items():
            claimed = {claim.row for claim in table.claims.get(task, ())}
            assert {table.reference, *claimed} <= set(table.rows_at(size))
    for cells in PAPER.values():
        for name, row, cell in cells:
            assert row in TABLES[name].rows
            assert cell in TABLES[name].cells


def test_rows_differ_from_the_full_method_in_what_they_say_and_in_nothing_else(tmp_path):
    full = [recipe.to_dict() for recipe in stage_recipes(ROWS["full"], settings(tmp_path), 0)]
    for name in ("static+dynamic", "dense", "dense_large", "experts_6_3", "inject_all", "no_module", "frozen"):
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
    # Stage 1 alone trains longer than the full method's stage 1: it is a run of its own.
    assert trained.count("stage1_only_s0") == 1
    assert trained.count("full_s0") == trained.count("full_s1") == 2


def test_no_evaluated_scene_is_one_of_the_demonstrations(tmp_path):
    units = plan(ALL, settings(tmp_path))
    asked = {unit.key: unit.spec["arguments"] for unit in units if "--seed" in unit.spec.get("arguments", ())}
    assert {unit.kind for unit in units if unit.key in asked} == {"eval", "counterfactual", "router"}
    for words in asked.values():
        first = trial_seed(int(words[words.index("--seed") + 1]), 0)
        assert first == trial_seed(EVAL_SEED, 0) >= SEED_STRIDE
    data = tmp_path / "clash"
    (data / "meta").mkdir(parents=True)
    (data / layout.INFO_PATH).write_text("{}")
    (data / layout.PROVENANCE_PATH).write_text(json.dumps({"seed": trial_seed(EVAL_SEED, 0) // SEED_STRIDE}))
    chosen = settings(tmp_path / "out", data=str(data), start="tiny_base")
    (said,) = missing(plan(["table3"], chosen), chosen)
    assert "shows the scenes of the evaluations" in said


def test_several_tables_share_what_they_have_in_common(tmp_path, capsys):
    words = ["--out", str(tmp_path / "out"), "--start", "tiny_base", "--data", "nowhere", "--dry-run"]
    listed = []
    for tables in (["swap"], ["6"], ["swap", "6"], ["6", "swap", "6"]):
        assert main([*tables, *words]) == 0
        listed.append([line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]])
    swap, six, both, again = listed
    assert both[: len(swap)] == swap
    assert again[: len(six)] == six
    assert set(both) == set(again) == set(swap) | set(six)
    assert len(both) == len(again) == len(set(both)) < len(swap) + len(six)


def test_what_is_missing_is_said_before_anything_runs(tmp_path, capsys):
    words = ["systems", "--out", str(tmp_path / "out"), "--start", str(tmp_path / "none"), "--data", "nowhere"]
    assert main([*words, "--dry-run"]) == 0
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"the start is missing: '{tmp_path / 'none'}' is no folder" in said
    assert "give --start tiny_base" in said
    assert "`./chatvla demos TASK --out nowhere` records them" in said
    assert not (tmp_path / "out").exists()
    asked = settings(tmp_path, data="nowhere", size="qwen2vl_2b")
    assert missing(plan(["table3"], asked), asked) == [said.splitlines()[-1].removeprefix("chatvla tables: ")]


def test_rows_of_one_stage_train_as_long_as_the_full_method(tmp_path, arm_data):
    asked = settings(tmp_path, steps=0.5, start="tiny_base", data=str(arm_data))
    full = stage_recipes(ROWS["full"], asked, 0)
    for name in ("stage1_only", "stage2_only", "robot_only"):
        (recipe,) = stage_recipes(ROWS[name], asked, 0)
        assert recipe.steps == full[0].steps + full[1].steps
    (diffusion,) = stage_recipes(ROWS["diffusion_policy"], asked, 0)
    assert diffusion.steps * diffusion.batch == sum(recipe.steps * recipe.batch for recipe in full)
    # Stage 2 alone ends in the model that the full method ends in.
    save_step0(full[0], tmp_path / "stage1")
    spec = robot_spec("arx_r5")
    whole = start_model(replace(full[1], init=str(tmp_path / "stage1")), [spec]).model.config
    (alone,) = stage_recipes(ROWS["stage2_only"], asked, 0)
    assert replace(start_model(alone, [spec]).model.config, max_reasoning_tokens=0) == replace(
        whole, max_reasoning_tokens=0
    )


def test_larger_dense_model_starts_as_the_dense_one_and_uses_all_of_its_experts(tmp_path, arm_data):
    asked, tokens = settings(tmp_path, start="tiny_base", data=str(arm_data)), torch.arange(40)[None]
    models = {}
    for name in ("dense", "dense_large"):
        recipe = stage_recipes(ROWS[name], asked, 0)[0]
        models[name] = start_model(recipe, [robot_spec("arx_r5")]).model.backbone
    with torch.no_grad():
        dense, large = (model.eval()(input_ids=tokens).logits for model in models.values())
    torch.testing.assert_close(large, dense, rtol=1e-4, atol=1e-4)
    models["dense_large"](input_ids=tokens).logits.square().mean().backward()
    layer = models["dense_large"].model.language_model.layers[0].mlp
    assert len(layer.experts) == 4
    assert all(expert.down_proj.weight.grad.abs().max() > 0 for expert in layer.experts)


def test_paper_scale_is_planned_with_the_papers_recipes(tmp_path):
    units = plan(["table3"], settings(tmp_path, size="qwen2vl_2b"))
    stages = [unit.spec["name"] for unit in units if unit.kind == "train" and "full" in unit.key]
    assert stages == ["stage1", "stage2"]
    assert SIZES["qwen2vl_2b"]["stage1"] == "stage1"


def test_estimate_names_what_was_never_measured_and_guesses_by_the_mean_of_a_kind(tmp_path):
    def unit(name, rate_key, amount, kind="train", batch=10, after=()):
        return Unit(
            key=name,
            kind=kind,
            folder=tmp_path / name,
            after=after,
            amount=amount,
            rate_key=rate_key,
            spec={"batch": batch, "stage": "stage1"},
        )

    rates = Rates(tmp_path / RATES)
    units = [unit("a", "slow", 100), unit("b", "slow", 50), unit("c", "new", 10, kind="eval")]
    assert "3 units left, 3 whose 2 kinds were never measured" in estimate(units, rates, 1)
    rates.add(units[0], 400.0)
    again = Rates(tmp_path / RATES)
    assert again.seconds(units[1]) == pytest.approx(200.0)
    assert "about 7 min and 1 whose 1 kinds" in estimate(units, again, 2)
    other = unit("d", "other", 50, batch=20)
    assert again.seconds(other) == pytest.approx(400.0)
    assert estimate([other], again, 1) == "1 units left, about 7 min, 1 units by their kind's mean"
    chained = [units[0], unit("e", "slow", 100, after=("a",))]
    assert "about 13 min" in estimate(chained, again, 2), "two units of a chain cannot run side by side"


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
    hours = Hours(tmp_path / HOURS)
    spent = {unit.key: hours.seconds(unit_name(unit, tmp_path)) for unit in (bad, after, good)}
    assert spent[after.key] == 0.0 < min(spent[bad.key], spent[good.key])
    assert Rates(tmp_path / RATES).seconds(good) == pytest.approx(spent[good.key])


def test_kept_evaluations_spare_their_trainings_and_are_refused_for_other_recipes_or_trials(tmp_path):
    asked = settings(tmp_path / "out", evals=tmp_path / "kept")
    for unit in plan(["table4"], asked):
        if unit.kind == "eval":
            write_maker(unit.folder, unit.made_by)
            results = {"complete": True, "trials": [{}] * unit.amount, "seed": EVAL_SEED}
            (unit.folder / RESULTS_NAME).write_text(json.dumps(results))
    units = plan(["table4"], asked)
    assert spared(units) == {unit.key for unit in units if unit.kind == "train"}
    assert estimate(units, Rates(tmp_path / RATES), 1) == "nothing left"
    with pytest.raises(ValueError, match="holds 52 trials or questions, 26 are asked for"):
        plan(["table4"], replace(asked, trials=0.5))
    lost = next(unit for unit in units if unit.kind == "eval" and "stage2_only" in unit.key)
    results = json.loads((lost.folder / RESULTS_NAME).read_text())
    (lost.folder / RESULTS_NAME).write_text(json.dumps(results | {"seed": 0}))
    with pytest.raises(ValueError, match=f"holds scenes of seed 0, the tables evaluate seed {EVAL_SEED}"):
        plan(["table4"], asked)
    (lost.folder / RESULTS_NAME).write_text(json.dumps(results | {"task": "toy_placement"}))
    with pytest.raises(ValueError, match="holds trials of toy_placement, the size asked for has math_match"):
        plan(["table4"], asked)
    (lost.folder / RESULTS_NAME).unlink()
    units = plan(["table4"], asked)
    kept = {unit.folder.parent.name for unit in units if unit.kind == "train" and unit.key in spared(units)}
    assert kept == {"full_s0", "stage1_only_s0", "robot_only_s0"}
    with pytest.raises(ValueError, match=r"other recipes \(tiny_stage1.steps"):
        plan(["table4"], replace(asked, steps=0.5))


def test_systems_are_compared_on_the_same_data_and_asked_for_understanding_and_time(tmp_path):
    units = plan(["systems"], settings(tmp_path))
    by_kind = {kind: [unit for unit in units if unit.kind == kind] for kind in {unit.kind for unit in units}}
    (relabel,) = by_kind["relabel"]
    adapters, lists = [unit for unit in by_kind["train"] if unit.spec["system"] == "vlm2vla"]
    assert adapters.after == (relabel.key,)
    assert lists.after == (adapters.key,)
    assert lists.spec["init"] == str(adapters.folder / "policy")
    assert adapters.spec["data"] == lists.spec["data"] == str(relabel.folder)
    assert len({unit.spec["init"] for unit in by_kind["train"] if "/0_" in unit.key and unit.spec["init"]}) == 1
    assert len(by_kind["latency"]) == 5
    assert all(unit.alone for unit in by_kind["latency"])
    # The diffusion policy reads no language: nothing can be retained.
    assert len(by_kind["understanding"]) == 4


def test_a_unit_is_done_by_its_figures_and_not_by_plots_or_pages(tmp_path):
    units = plan(["swap", "systems", ROUTER], settings(tmp_path))
    for kind in ("counterfactual", "understanding", ROUTER):
        unit = next(unit for unit in units if unit.kind == kind)
        unit.folder.mkdir(parents=True)
        for name in ("divergence.svg", "router_after_robot.svg", f"{kind}.md", f"{kind}.html", "answers.json"):
            (unit.folder / name).write_text("x")
        assert not unit.done
        (unit.folder / f"{kind}.json").write_text("{}")
        assert unit.done


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
    timed_on = json.loads(proofs[2].read_text())
    assert timed_on["first_s"] > 0
    assert timed_on["seed"] == EVAL_SEED
    questions = read_questions(proofs[0])
    assert len(questions) == 3
    assert all(len(asked.answers[0]) <= 24 for asked in questions)
    assert proofs[0].read_text() == proofs[1].read_text(), "the questions depend on more than their number"


def test_finished_work_of_another_recipe_or_start_is_refused(tmp_path, arm_data):
    start = tmp_path / "start"
    save_untrained(start, robot="arx_r5", max_tokens=8)
    asked = settings(tmp_path / "out", start=str(start), data=str(arm_data), overrides=(("moe", "keep"),))
    (unit,) = [unit for unit in plan([ROUTER], asked) if unit.kind == "step0"]
    (tmp_path / "spec.json").write_text(json.dumps(unit.spec))
    assert do_unit(["step0", str(unit.folder), str(tmp_path / "spec.json")]) == 0
    assert [unit.kind for unit in plan([ROUTER], asked) if unit.done] == ["step0"]
    with pytest.raises(ValueError, match=r"training of another recipe \(tiny_stage1.lr differ\); delete that folder"):
        plan([ROUTER], replace(asked, overrides=(*asked.overrides, ("lr", 1e-3))))
    save_untrained(start, robot="arx_r5", max_tokens=9)
    with pytest.raises(ValueError, match=r"tiny_stage1.init_sha256 differ"):
        plan([ROUTER], asked)


def few_steps(table, folder, data, chat):
    """Return the words of a run of `table` from random weights that ends in minutes."""
    save_untrained(folder / "start", robot="arx_r5", max_tokens=8)
    small = {"batch": 2, "micro_batch": 2, "image_text": f"qa={chat}", "objective": "vla", "moe": "keep"}
    small |= {"validate_every": 0, "frame_every": 1, "balance_weight": 0.0}
    words = [table, "--out", str(folder / "out"), "--start", str(folder / "start"), "--data", str(data)]
    words += ["--steps", "0.003", "--trials", "0.02", "--jobs", "2", "--quiet"]
    return [*words, "--set", *(f"{key}={value}" for key, value in small.items())]


@pytest.mark.slow
def test_table_from_nothing_in_a_few_steps_and_again_at_once(tmp_path, arm_data: Path, llava_file: Path, capsys):
    words = few_steps("frozen", tmp_path, arm_data, llava_file)
    code = main(words)
    said = capsys.readouterr()
    assert code == 0, said.err
    results = json.loads((tmp_path / "out" / "results" / "frozen_tiny.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["full", "frozen"]
    assert all(row["cells"]["open_world"]["success"]["n"] == 1 for row in results["rows"])
    assert results["hours"] > 0
    assert results["commits"]["trainings"]
    assert results["commits"]["evaluations"]
    assert results["settings"]["start_sha256"]
    assert results["settings"]["overrides"]["batch"] == 2
    assert not list((tmp_path / "out").glob("runs/*/*/features"))
    assert "no result" in (tmp_path / "out" / "results" / "frozen_tiny.md").read_text()
    assert main(words) == 0
    assert "nothing left" in capsys.readouterr().out
    assert main([*words, "lr=0.5"]) == 2
    assert "tiny_stage1.lr differ" in capsys.readouterr().err


@pytest.mark.slow
def test_router_is_compared_with_its_own_model_at_step_0(tmp_path, arm_data: Path, llava_file: Path, capsys):
    code = main(few_steps("router", tmp_path, arm_data, llava_file))
    assert code == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "results" / "router_tiny.json").read_text())
    assert [model["when"] for model in found["models"]] == ["before", "after"]
    assert found["models"][0]["policy"] == "step0"
    assert (found["size"], found["training_seed"], found["seed"]) == ("tiny", 0, EVAL_SEED)
    assert len(found["drift_of_training"]["robot"]) == len(found["models"][0]["kinds"]["robot"]["counts"])
    assert "evaluation seed 400" in (tmp_path / "out" / "results" / "router_tiny.md").read_text()
