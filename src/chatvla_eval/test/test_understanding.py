# SPDX-License-Identifier: Apache-2.0
"""Metrics against published examples, files in both layouts, and a checkpoint asked through the command."""

import base64
import io
import json

import pytest
from PIL import Image

from chatvla_eval.cli import main
from chatvla_eval.understanding.metrics import anls, choice, default_metric, exact, relaxed, vqa
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
    ("answer", "right"), [("B", True), ("B. a dog", True), ("(B)", True), ("The answer is B.", True), ("Bad", False)]
)
def test_choice_reads_the_letter(answer, right):
    assert choice(answer, ["B"]) == right


def test_metric_follows_from_the_benchmarks_name():
    names = ("TextVQA_VAL.tsv", "DocVQA_TEST.tsv", "ChartQA_TEST.tsv", "mine.json")
    assert [default_metric(name) for name in names] == ["vqa", "anls", "relaxed", "exact"]
    assert exact(" Seven ", ["seven"]) == 1


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
    turns = [("human", "<image>\nColour?"), ("gpt", "blue"), ("human", "Shape?"), ("gpt", "square")]
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
        ("a.json", '[{"image": "x"}]', "entry 0 has no conversations"),
        ("a.tsv", "index\tquestion\n0\tx\n", "no column answer"),
        ("a.tsv", "index\tquestion\tanswer\timage\n0\tx\ty\t7\n", "image from row '7'"),
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
    assert "| TextVQA_x.tsv | vqa | 1 |" in capsys.readouterr().out
    assert main(["understanding", "--data", str(tmp_path / "gone.tsv"), "--policy", str(tmp_path / "random")]) == 1


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
