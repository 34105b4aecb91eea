# SPDX-License-Identifier: Apache-2.0
"""In-process evaluation on the real bench: the expert solves it, forced texts are followed, jobs change nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from chatvla_eval import film_gif
from chatvla_eval.cli import _parse, main
from chatvla_eval.demonstrations import DEMONSTRATION_NOTE, DEMONSTRATION_WARNING
from chatvla_eval.film import FILM_HZ, TrialFilm
from chatvla_eval.in_process import InProcessSession
from chatvla_eval.session import TrialSetup
from chatvla_eval.trial_result import TrialResult
from chatvla_policy.systems.untrained import save_untrained


def evaluate(folder, *more):
    code = main(["math_match", "--policy", "expert", "--seed", "7", "--quiet", "--out", str(folder), *more])
    return code, json.loads((folder / "results.json").read_text())


def test_expert_succeeds_and_a_film_is_made(tmp_path, capsys):
    code, results = evaluate(tmp_path, "--trials", "2", "--jobs", "1")
    assert code == 0
    assert [trial["success"] for trial in results["trials"]] == [True] * 2
    assert {(trial["ocr"], trial["math"], trial["cause"]) for trial in results["trials"]} == {(4, 2, "")}
    assert (results["policy"], results["privileged"], results["simulation"]) == ("expert", True, True)
    assert results["complete"]
    assert "expert (privileged)" in capsys.readouterr().out
    film = imageio.get_reader(tmp_path / "trial_000.mp4")
    assert film.count_frames() > 40
    assert film.get_data(30).shape == (656, 640, 3)
    assert film_gif.main([str(tmp_path / "trial_000.mp4"), str(tmp_path / "small.gif"), "--width", "200"]) == 0
    with Image.open(tmp_path / "small.gif") as small:
        assert small.size == (200, 205)
        assert film.count_frames() * 0.3 < small.n_frames < film.count_frames() * 0.6
    assert film_gif.main([str(tmp_path / "none.mp4"), str(tmp_path / "none.gif")]) == 2


def test_results_do_not_depend_on_the_number_of_jobs(tmp_path):
    _, alone = evaluate(tmp_path / "one", "--trials", "3", "--jobs", "1", "--no-film")
    _, together = evaluate(tmp_path / "two", "--trials", "3", "--jobs", "2", "--no-film")
    assert alone["trials"] == together["trials"]
    assert alone["summary"] == together["summary"]


def test_forced_reasoning_is_followed_and_scored_as_said(tmp_path):
    force = "I should pick the right card."
    code, results = evaluate(tmp_path, "--trials", "2", "--jobs", "1", "--no-film", "--force", force)
    assert code == 0
    for trial in results["trials"]:
        right = next(card["value"] for card in trial["cards"] if card["place"] == "right")
        assert (trial["text"], trial["picked"]) == (force, right)
        assert trial["success"] == (right == trial["right_answer"])
        assert trial["cause"] == ("" if trial["success"] else "perception")


def test_robot_moves_on_while_the_policy_thinks(tmp_path, capsys):
    more = ["--trials", "1", "--jobs", "1", "--no-film"]
    _, at_once = evaluate(tmp_path / "at_once", *more)
    code, delayed = evaluate(tmp_path / "delayed", *more, "--delay", "0.2,0.4")
    assert code == 0
    assert delayed["trials"][0]["success"]
    assert delayed["delay_s"] == [0.2, 0.4]
    assert "delay_s" not in at_once
    assert "an inference takes 0.2 s, with a new text 0.4 s" in capsys.readouterr().out
    # What is known 0.2 s later is done later, and the same each time.
    assert delayed["trials"][0]["seconds"] > at_once["trials"][0]["seconds"]
    _, again = evaluate(tmp_path / "again", *more, "--delay", "0.2,0.4")
    assert again["trials"] == delayed["trials"]
    for text in ("", "0.1,0.2,0.3", "-1", "fast"):
        with pytest.raises(SystemExit):
            main(["math_match", f"--delay={text}"])
        assert "one or two times of 0 to 10 s" in capsys.readouterr().err


def test_swap_changes_places_and_nothing_else(tmp_path):
    _, plain = evaluate(tmp_path / "plain", "--trials", "1", "--no-film")
    _, swapped = evaluate(
        tmp_path / "swapped", "--trials", "1", "--no-film", "--swap", "--against", str(tmp_path / "plain")
    )
    assert (swapped["against"]["n"], swapped["against"]["privileged"]) == (1, True)
    assert swapped["against"]["success"] == {"both": 1, "only_first": 0, "only_second": 0, "neither": 0, "p": 1.0}
    one, other = plain["trials"][0], swapped["trials"][0]
    assert one["equation"] == other["equation"]
    assert one["cards"] != other["cards"]
    assert sorted(card["value"] for card in one["cards"]) == sorted(card["value"] for card in other["cards"])


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_interrupt_ends_all_processes_and_keeps_what_was_done(tmp_path):
    command = ["math_match", "--trials", "500", "--jobs", "2", "--no-film", "--quiet", "--out", str(tmp_path)]
    running = subprocess.Popen(
        [sys.executable, "-m", "chatvla_eval.cli", *command], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "results.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        _, complaint = running.communicate(timeout=10)
        assert running.returncode == 130
        assert "Traceback" not in complaint
        assert "stopped after" in complaint
        deadline = time.monotonic() + 5
        while group_lives(running.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not group_lives(running.pid)
    finally:
        if group_lives(running.pid):
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["trials"]) >= 1
    assert not results["complete"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["math_mach"], ["math_match", "did you mean"]),
        (["math_match", "--split", "openworld"], ["open_world", "did you mean"]),
        (["math_match", "--policy", "exprt"], ["did you mean 'expert'"]),
        (["math_match", "--trails", "3"], ["--trials", "did you mean"]),
        (["math_match", "--trials", "0"], ["at least 1"]),
        (["math_match", "--seed", "-1"], ["whole number"]),
        (["math_match", "--font", "/nowhere.ttf"], ["no font file"]),
        (["math_match", "--out", "runs/a", "--against", "runs/../runs/a"], ["runs/a", "would be overwritten"]),
        ([], ["task"]),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    complaint = capsys.readouterr().err
    assert all(word in complaint for word in words), complaint
    assert len(complaint.splitlines()) == 2


def test_runs_that_differ_do_not_share_a_default_folder():
    given = ([], ["--swap"], ["--force", "x"], ["--force-correct"], ["--delay", "0.1"])
    assert len({_parse(["math_match", *words]).out for words in given}) == len(given)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--replan", "1.0"], "replan_s 0.5, not 1.0"),
        (["--timeout", "9"], "timeout_s 40.0, not 9.0"),
        (["--force", "another text"], "forced_reasoning 'x', not 'another text'"),
        (["--trials", "1"], "2 trials, not 1"),
    ],
)
def test_results_of_another_run_are_not_overwritten(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    trials = [] if words[0] == "--trials" else ["--trials", "2"]
    force = [] if words[0] == "--force" else ["--force", "x"]
    assert main(["math_match", "--trials", "2", "--force", "x", "--jobs", "1", "--no-film", "--quiet"]) == 0
    first = _parse(["math_match", "--trials", "2", "--force", "x"]).out
    kept = (first / "results.json").read_bytes()
    asked = ["math_match", *trials, *force, *words]
    assert _parse(asked).out == first.with_name(f"{first.name}_2")
    with pytest.raises(SystemExit):
        main([*asked, "--out", str(first)])
    assert f"holds the results of another run ({said}); give another folder" in capsys.readouterr().err
    assert (first / "results.json").read_bytes() == kept


def test_policy_that_cannot_be_loaded_is_one_sentence(tmp_path, capsys):
    code = main(
        [
            "math_match",
            "--policy",
            str(tmp_path),
            "--trials",
            "1",
            "--jobs",
            "1",
            "--quiet",
            "--out",
            str(tmp_path / "out"),
        ]
    )
    assert code == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_text_is_kept_as_long_as_the_policy_node_keeps_it(tmp_path):
    save_untrained(tmp_path / "random", robot="arx_r5", max_tokens=8)
    session = InProcessSession(task="math_match", policy=str(tmp_path / "random"))
    session.reset(TrialSetup(index=0, split="in_domain", seed=1))
    session.start(TrialSetup(index=0, split="in_domain", seed=1), "Pick the card.", 12.0)
    for _ in range(105):
        watch = session.watch()
    session.close()
    kept = [chunk.reasoning_source.name for chunk in watch.chunks]
    # Every half second a chunk, every ten seconds a text.
    assert kept == ["GENERATED", *["REUSED"] * 19, "GENERATED"]


def test_the_default_seed_is_none_of_the_demonstrations_and_theirs_is_named(tmp_path, capsys):
    folder = tmp_path / "mine" / "policy"
    save_untrained(folder, robot="arx_r5", max_tokens=8)
    words = ["math_match", "--policy", str(folder), "--split", "in_domain", "--trials", "1", "--timeout", "0.3"]
    found = {}
    for number, seed in enumerate(([], ["--seed", "0"], ["--seed", "4"])):
        out = tmp_path / f"out{number}"
        assert main([*words, *seed, "--jobs", "1", "--quiet", "--no-film", "--report", "--out", str(out)]) == 0
        results, page = json.loads((out / "results.json").read_text()), (out / "report.html").read_text()
        told = capsys.readouterr()
        found[results["seed"]] = results["demonstration_scenes"]
        assert results["policy"] == "mine"
        for place, words_of_it in ((told.err, DEMONSTRATION_WARNING), (told.out, DEMONSTRATION_NOTE)):
            assert place.count(words_of_it) == (results["seed"] < 5)
        assert (DEMONSTRATION_NOTE in page) is (results["seed"] < 5)
    assert found == {100: False, 0: True, 4: True}


def test_film_leaves_out_pictures_of_another_sender(tmp_path):
    """A second sender's pictures, of another size, once ended the scorer after its first trial."""
    film = TrialFilm()
    for number in range(20):
        small = number % 4 == 0
        film.add(number / FILM_HZ, np.full((12, 16, 3) if small else (240, 320, 3), 90, np.uint8), "text")
    result = TrialResult(
        index=0,
        seed=0,
        instruction="Pick a card.",
        scene={},
        text="text",
        answer="",
        texts=1,
        picked="",
        measures={},
        parts={},
        success=False,
        cause="timeout",
        seconds=2.0,
        subsets=(),
    )
    path = film.write(tmp_path, "film", result, "policy")
    assert path is not None
    assert imageio.get_reader(path).get_data(0).shape == (656, 640, 3)
    assert imageio.get_reader(path).count_frames() == 15 + 2 * FILM_HZ


def test_a_policy_of_another_bench_is_refused_before_the_first_trial(tmp_path, capsys):
    save_untrained(tmp_path / "toys", robot="franka", camera="right")
    code = main(
        ["math_match", "--policy", str(tmp_path / "toys"), "--trials", "2", "--quiet", "--out", f"{tmp_path}/o"]
    )
    assert code == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "drives franka by camera right; math_match has arx_r5 and camera top: give a policy of this bench" in said
    assert "such as tiny" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["math_match", "--out", "/proc/none/out"], "argument --out: /proc/none/out cannot be written"),
        (["counterfactual", "--policy", "p", "--out", "/proc/none/out"], "/proc/none/out cannot be written"),
        (["router", "--policy", "p", "--out", "/proc/none/out"], "/proc/none/out cannot be written"),
        (["understanding", "--policy", "p", "--data", "d", "--out", "/proc/none/out"], "cannot be written"),
        (["math_match", "--policy", ""], "argument --policy: the value is empty"),
        (["toy_placement", "--font", __file__], "argument --font: nothing is written in toy_placement"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(words, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


def test_an_output_folder_that_is_only_tried_stays_away(tmp_path):
    assert _parse(["math_match", "--out", str(tmp_path / "a" / "b")]).out == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()


def test_help_names_the_other_evaluations_and_bags_have_theirs(capsys):
    for words, wanted in (
        (["--help"], ("--bag", "counterfactual", "router", "understanding")),
        (["--bag", "-h"], ("BAG",)),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0
        said = capsys.readouterr().out
        assert all(word in said for word in wanted)


def test_a_device_that_is_not_there_is_refused_and_a_gpu_has_one_trial_at_a_time(tmp_path, capsys):
    words = ["math_match", "--policy", "tiny", "--device", "cuda:99", "--out", str(tmp_path)]
    assert _parse(words).jobs == 1
    assert main(words) == 1
    assert "not cuda:99; give cpu or another device" in capsys.readouterr().err
