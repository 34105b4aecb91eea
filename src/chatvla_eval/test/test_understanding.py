# SPDX-License-Identifier: Apache-2.0
"""Metrics against published examples, files in both layouts, and a checkpoint asked through the command."""

import base64
import io
import json

import pytest
from PIL import Image

from chatvla_eval.cli import main
from chatvla_eval.understanding.benchmarks import UnknownMetricError, default_metric
from chatvla_eval.understanding.command import evaluated, markdown, write
from chatvla_eval.understanding.metrics import FORMULAS, anls, choice, exact, mtvqa, relaxed, score_of, vqa, yes_no
from chatvla_eval.understanding.questions import QuestionsError, read_questions
from chatvla_eval.understanding.vqa_words import normal_answer


@pytest.mark.parametrize(("agreeing", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_accuracy_by_the_number_of_people_who_agree(agreeing, accuracy):
    # visualqa.org: leaving each of ten people out in turn, min(1, agreeing / 3) averages to these.
    people = ["red"] * agreeing + [f"other{k}" for k in range(10 - agreeing)]
    assert vqa("Red.", people) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The two dogs", "2 dogs"),
        ("dont know", "don't know"),
        ("couldn'tve", "couldn't've"),
        ("3,000 people", "3000 people"),
        ("1.5 m.", "1.5 m"),
        ("red-blue", "red blue"),
        ("yes, please!", "yes please"),
        ("none", "0"),
    ],
)
def test_answers_are_normalised_as_the_vqa_evaluation_does(answer, normal):
    assert normal_answer(answer) == normal


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        # Biten et al. 2019: NL = 1/6 for one letter of six; below one half it counts nothing.
        ("coca c", ["coca cola"], 1 - 3 / 9),
        ("ACME  inc", ["acme inc"], 1.0),
        ("house", ["horse"], 0.8),
        ("table", ["horse"], 0.0),
        ("12", ["17", "12"], 1.0),
        ("", ["x"], 0.0),
    ],
)
def test_anls(answer, references, score):
    assert anls(answer, references) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("105", "100", True),
        ("106", "100", False),
        ("0.47", "47%", True),
        ("-95", "-100", True),
        ("0.01", "0", False),
        ("Yes", "yes", True),
        ("12 apples", "12", False),
    ],
)
def test_relaxed_accuracy_allows_five_percent_of_numbers_only(answer, reference, right):
    assert relaxed(answer, [reference]) == right


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B. a dog", "B"),
        ("(B)", "B"),
        ("B) A dog", "B"),
        ("B\nbecause of A", "B"),
        ("The answer is B.", "B"),
        ("Answer: B", "B"),
        ("Option B", "B"),
        ("I think the answer is B", "B"),
        ("I'd say B.", "B"),
        ("A dog, so B", "B"),
        ("Option A shows a cat, so the answer is option B", "B"),
        ("B because it is red", "B"),
        ("A", "A"),
        ("A because it is red", "A"),
        ("A.", "A"),
        ("The answer is A", "A"),
        ("A red dog", ""),
        ("The answer is A dog", ""),
        ("A or B", ""),
        ("Bad", ""),
        ("I do not know", ""),
    ],
)
def test_choice_reads_the_letter(answer, letter):
    assert [choice(answer, [right]) for right in "ABI"] == [letter == right for right in "ABI"]


def test_choice_takes_letters_of_the_question_alone():
    assert score_of("choice", "Vitamin E, so C", ["C"], options="ABCD") == 1.0
    assert score_of("choice", "Vitamin E, so C", ["C"], options="ABCDE") == 0.0


def test_metric_follows_from_the_benchmarks_name():
    metrics = {
        "TextVQA_VAL.tsv": "vqa",
        "DocVQA_TEST.tsv": "anls",
        "ChartQA_TEST.tsv": "relaxed",
        "OCRBench.tsv": "ocrbench",
        "MME.tsv": "yes_no",
        "MME_subset.tsv": "yes_no",
        "HallusionBench.tsv": "yes_no",
        "HallBench.json": "yes_no",
        "MTVQA_TEST.tsv": "mtvqa",
        "mine.json": "exact",
        "summertime.json": "exact",
    }
    assert {name: default_metric(name) for name in metrics} == metrics
    assert exact(" Seven ", ["seven"]) == 1


@pytest.mark.parametrize("name", ["OCRBench_v2.tsv", "MMVet.tsv", "MathVista_MINI.tsv", "LLaVABench.tsv"])
def test_benchmark_without_its_metric_is_refused_by_name(tmp_path, capsys, name):
    with pytest.raises(UnknownMetricError, match=f"{name} .* --metric"):
        default_metric(name)
    (tmp_path / name).write_text("index\tquestion\tanswer\n0\tWhat?\tA dog\n")
    assert main(["understanding", "--data", str(tmp_path / name), "--policy", "nowhere"]) == 1
    assert "whose own metric is not here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "references", "category", "right"),
    [
        ("The word is centre.", ["CENTRE"], "Regular Text Recognition", True),
        ("centre", ["centres"], "", False),
        ("17\nMay", ["june", "17 may"], "", True),
        ("1 7", ["17"], "Digit String Recognition", False),
        ("It is \\frac{ 1 }\n{ 2 }", ["\\frac { 1 } { 2 }"], FORMULAS, True),
        ("X ^ 2", ["x ^ 2"], FORMULAS, False),
    ],
)
def test_ocrbench_looks_for_the_reference_in_the_answer(answer, references, category, right):
    assert score_of("ocrbench", answer, references, category=category) == right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Es sind 3.5 kg.", "3.5 KG", True),
        ("Via Roma", "via roma.", True),
        ("Roma", "Via Roma", False),
        (" a", ". a", False),
    ],
)
def test_mtvqa_looks_for_the_reference_without_full_stops(answer, reference, right):
    assert mtvqa(answer, [reference]) == right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Yes.", "Yes", True),
        ("no, there is none", "No", True),
        ("The answer is: yes!", "yes", True),
        ("Yes or no", "Yes", False),
        ("nothing", "No", False),
        ("", "No", False),
    ],
)
def test_yes_no_reads_one_of_the_two_words(answer, reference, right):
    assert yes_no(answer, [reference]) == right


def test_questions_that_no_yes_answers_are_refused_before_the_policy_is_loaded(tmp_path, capsys):
    (tmp_path / "MME.tsv").write_text("index\tquestion\tanswer\n7\tWhich?\tB\n")
    assert main(["understanding", "--data", str(tmp_path / "MME.tsv"), "--policy", "nowhere"]) == 1
    complaint = capsys.readouterr().err
    assert "MME.tsv, question 7: the metric yes_no needs references yes or no, got ['B']; give --metric" in complaint


def test_page_gives_retention_with_its_interval_and_says_what_is_left_out():
    rate = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4}
    entry = {"file": "MME.tsv", "metric": "yes_no", "n": 4, "policy": rate, "base": rate, "difference": rate}
    known = entry | {"retention": 0.875, "retention_interval": {"low": 0.7, "high": None}, "left_out": "accuracy+"}
    page = markdown({"policy": "p", "base": "b", "commit": "c", "sets": [known]})
    assert "| 87.5% [70.0, -] |" in page
    assert "MME.tsv: the benchmark's own score has more, left out here: accuracy+." in page


def test_results_are_there_only_once_the_pages_are(tmp_path):
    rate = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 1}
    entry = {"file": "a.json", "metric": "exact", "n": 1, "policy": rate, "policy_answers": []}
    results = {"policy": "p", "base": "", "commit": "c", "sets": [entry]}
    obstacle = tmp_path / "understanding.html"
    obstacle.mkdir()
    with pytest.raises(OSError, match=obstacle.name):
        write(tmp_path, results)
    assert not (tmp_path / "understanding.json").exists()
    obstacle.rmdir()
    write(tmp_path, results)
    # Who has the old file open keeps it whole: the new one took its place by a rename.
    with (tmp_path / "understanding.json").open() as before:
        write(tmp_path, results | {"commit": "d"})
        assert json.load(before) == results


def encoded(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_tsv_with_images_options_and_several_answers(tmp_path):
    path = tmp_path / "Some_MCQ.tsv"
    rows = [
        "index\timage\tquestion\tanswer\tA\tB",
        f"0\t{encoded('red')}\tWhich colour?\tB\tgreen\tred",
        "1\t0\tHow many?\t['one', '1']\t\t",
    ]
    path.write_text("\n".join(rows))
    first, second = read_questions(path)
    assert first.options == ("A", "B")
    assert first.text.splitlines()[2:4] == ["A. green", "B. red"]
    assert second.answers == ("one", "1")
    assert second.pictures()["image0"][0, 0].tolist() == [255, 0, 0]


def test_llava_turns_are_questions_with_their_images(tmp_path):
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "a.png")
    turns = [
        ("system", "Be brief."),
        ("human", "<image>\nColour?"),
        ("gpt", "blue"),
        ("human", "Shape?"),
        ("gpt", "square"),
    ]
    entry = {"id": "x", "image": "a.png", "conversations": [{"from": who, "value": said} for who, said in turns]}
    (tmp_path / "qa.json").write_text(json.dumps([entry]))
    first, second = read_questions(tmp_path / "qa.json")
    assert (first.name, first.text, first.answers) == ("x.0", "Colour?", ("blue",))
    assert (second.text, second.answers) == ("Shape?", ("square",))
    assert first.pictures()["image0"].shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "", "neither .json"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "[]", "holds no question"),
        ("a.json", "3", "no list of conversations"),
        ("a.json", '[{"image": "x"}]', "entry 0 has no conversations"),
        ("a.json", '[{"conversations": [{"from": "human"}]}]', "entry 0 has a turn without the texts"),
        ("a.json", '[{"conversations": [{"from": "bing", "value": ""}]}]', "turn from 'bing'; known: human"),
        ("a.json", '[{"conversations": [{"from": "gpt", "value": ""}]}]', "entry 0: questions and answers"),
        ("a.tsv", "index\tquestion\n0\tx\n", "no column answer"),
        ("a.tsv", "index\tquestion\tanswer\timage\n0\tx\ty\t7\n", "image from row '7'"),
        ("a.tsv", "index\timage\tquestion\tanswer\n0\t\tx\ty\n1\tQUJ", "row 1 has 2 of 4 columns; .* cut short"),
        ("a.tsv", f"index\timage\tquestion\tanswer\n0\t{'Q' * 101}\tx\ty\n", "row 0 is no base64"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(QuestionsError, match=sentence):
        read_questions(tmp_path / name)


@pytest.mark.slow
def test_checkpoint_is_asked_and_its_base_retains_all_of_itself(tmp_path, capsys):
    from chatvla_policy.systems.untrained import save_untrained

    save_untrained(tmp_path / "random", robot="arx_r5", max_tokens=8)
    (tmp_path / "TextVQA_x.tsv").write_text(f"index\timage\tquestion\tanswer\n0\t{encoded('red')}\tColour?\tred\n")
    words = ["--data", str(tmp_path / "TextVQA_x.tsv"), "--policy", str(tmp_path / "random"), "--quiet"]
    assert main(["understanding", *words, "--base", str(tmp_path / "random"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "understanding.json").read_text())["sets"][0]
    assert (found["metric"], found["n"]) == ("vqa", 1)
    assert found["policy_answers"][0]["answer"] == found["base_answers"][0]["answer"]
    assert found["difference"]["mean"] == 0
    right = found["base"]["mean"]
    assert found["retention"] == (1 if right else None)
    assert found["retention_interval"] == ({"low": 1, "high": 1} if right else {"low": None, "high": None})
    assert "| TextVQA_x.tsv | vqa | 1 |" in capsys.readouterr().out
    assert main(["understanding", "--data", str(tmp_path / "gone.tsv"), "--policy", str(tmp_path / "random")]) == 1


@pytest.mark.slow
def test_files_of_one_name_stay_apart_and_answers_outlive_what_comes_after_them(tmp_path, capsys):
    from chatvla_policy.systems.untrained import save_untrained

    save_untrained(tmp_path / "random", robot="arx_r5", max_tokens=8)
    for folder in ("MME", "other"):
        (tmp_path / folder).mkdir()
        turns = [{"from": "human", "value": f"{folder}?"}, {"from": "gpt", "value": "yes"}]
        (tmp_path / folder / "test.json").write_text(json.dumps([{"id": 0, "conversations": turns}]))
    files, random = [tmp_path / name / "test.json" for name in ("MME", "other", "MME")], str(tmp_path / "random")
    kept = []
    found = evaluated(files, policy=random, base=random, keep=kept.append)
    told = [(one["file"], one["metric"], one["policy_answers"][0]["question"]) for one in found["sets"]]
    # The folder's name is no benchmark's, and a file given twice is one.
    assert told == [("MME/test.json", "exact", "MME?"), ("other/test.json", "exact", "other?")]
    assert ["base_answers" in one["sets"][-1] for one in kept] == [False, True, False, True]
    assert not any("policy" in one["sets"][-1] for one in kept)
    out = tmp_path / "out"
    (out / "understanding.html").mkdir(parents=True)
    words = ["understanding", "--data", *map(str, files), "--policy", random, "--quiet", "--out", str(out)]
    assert main(words) == 1
    assert f"the answers to whole files are in {out / 'answers.json'}" in capsys.readouterr().err
    saved = json.loads((out / "answers.json").read_text())["sets"]
    assert [one["policy_answers"] for one in saved] == [one["policy_answers"] for one in found["sets"]]
    (out / "understanding.html").rmdir()
    assert main(words) == 0
    assert sorted(path.name for path in out.iterdir()) == [f"understanding.{end}" for end in ("html", "json", "md")]


def test_adapter_of_vlmevalkit_with_the_package_itself(tmp_path):
    pytest.importorskip("vlmeval", reason="VLMEvalKit is not installed")
    from chatvla_eval.understanding.adapters.vlmevalkit import ChatVLA
    from chatvla_policy.systems.untrained import save_untrained

    save_untrained(tmp_path / "random", robot="arx_r5", max_tokens=8)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    assert isinstance(ChatVLA(str(tmp_path / "random")).generate([str(tmp_path / "a.png"), "Colour?"]), str)


def test_adapter_of_lmms_eval_with_the_package_itself(tmp_path):
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed")
    from lmms_eval.api.instance import Instance

    from chatvla_eval.understanding.adapters.lmms_eval import ChatVLA
    from chatvla_policy.systems.untrained import save_untrained

    save_untrained(tmp_path / "random", robot="arx_r5", max_tokens=8)
    model = ChatVLA.create_from_arg_string(f"checkpoint={tmp_path / 'random'}", {"batch_size": 1})
    model.task_dict = {"t": {"test": [Image.new("RGB", (40, 30), "red")]}}
    arguments = ("Colour?", {"until": ["\n"]}, lambda image: [image], 0, "t", "test")
    metadata = {"task": "t", "doc_id": 0, "repeats": 1}
    request = Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=metadata)
    assert [type(answer) for answer in model.generate_until([request])] == [str]
