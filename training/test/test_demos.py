# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in the real bench: solved, disturbed, resumable, and honest about equations."""

import json
import random
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from chatvla_control.robot_spec import robot_spec
from chatvla_policy.systems.untrained import save_untrained
from chatvla_sim.math_match.equations import equation_split, parse_equation
from chatvla_training.data.episodes import EpisodeDataset
from chatvla_training.demos.cli import main
from chatvla_training.demos.collect import CollectError, collect
from chatvla_training.demos.disturbance import Disturbance, DisturbanceSettings, start_pose
from chatvla_training.demos.endpoint import EndpointError, EndpointParaphraser, same_claims
from chatvla_training.demos.episode import DemoSettings
from chatvla_training.demos.thoughts import reworded, thought
from chatvla_training.vlm2vla.describe import EndpointDescriber

SETTINGS = DemoSettings(frame_hz=1.0, disturbance=DisturbanceSettings(share=1.0))
FACTS = {"task": "math_match", "equation": "3+4", "cards": [["7", "left"], ["1", "middle"], ["12", "right"]]}
TEXT = "On the whiteboard is 3+4. 3+4=7. There are: 7 (left), 1 (middle), and 12 (right). I should pick left card."


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of two episodes, made by a collection that was cut off after the first."""
    out = tmp_path_factory.mktemp("demos") / "set"
    parts = out.with_name(".set.parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chatvla_training.demos.collect.assemble", _stop)
        with pytest.raises(KeyboardInterrupt):
            collect(out, episodes=1, seed=3, jobs=1, settings=SETTINGS)
    assert not out.exists()
    first = (parts / "episode-000000.npz").read_bytes()
    counts = collect(out, episodes=2, seed=3, jobs=1, settings=SETTINGS)
    assert counts["kept"] == 1
    assert not parts.exists()
    assert first
    return out


def _stop(*_, **__):
    raise KeyboardInterrupt


def test_episodes_show_the_whole_task(demos: Path):
    data = EpisodeDataset(demos, horizon=50)
    spec = robot_spec("arx_r5")
    assert data.joint_names == spec.joint_names
    assert data.views == ("top",)
    assert len(data.episodes) == 2
    for episode in data.episodes:
        assert 3.0 < episode["length"] / spec.rate_hz < 25.0
    moved = np.ptp(data.actions_ND, axis=0)
    assert moved.max() > 0.3
    assert (data.actions_ND <= spec.upper + 1e-6).all()
    assert (data.actions_ND >= spec.lower - 1e-6).all()


def test_robot_data_shows_its_own_equations_only(demos: Path):
    data = EpisodeDataset(demos, horizon=50)
    for episode in range(2):
        facts = data.facts(episode)
        assert facts["split"] == "in_domain"
        assert equation_split(parse_equation(facts["equation"])) == "in_domain"


def test_every_frame_has_a_thought_about_its_scene(demos: Path):
    data = EpisodeDataset(demos, horizon=50)
    facts = data.facts(0)
    texts = {data.sample(index, 0).reasoning for index in range(4)}
    assert len(texts) > 1
    assert all(facts["equation"] in text for text in texts)


def test_provenance_says_how_it_was_made(demos: Path):
    provenance = json.loads((demos / "meta/chatvla.json").read_text())
    assert provenance["seed"] == 3
    assert provenance["simulation"] is True
    assert provenance["settings"]["disturbance"]["share"] == 1.0
    assert "data/chunk-000/file-000.parquet" in provenance["files"]


def test_expert_takes_over_where_a_policy_has_led(tmp_path: Path):
    save_untrained(tmp_path / "driver", robot="arx_r5")
    still = DisturbanceSettings(share=0.0, home_share=1.0)
    led = DemoSettings(frame_hz=1.0, disturbance=still, driver=str(tmp_path / "driver"), driver_s=(0.6, 0.6))
    firsts = {}
    for name, settings in (("led", led), ("home", replace(led, driver=""))):
        collect(tmp_path / name, episodes=1, seed=3, jobs=1, settings=settings)
        firsts[name] = EpisodeDataset(tmp_path / name, horizon=50).state(0)
    # The same trial from the same pose: only what an untrained policy does in 0.6 s lies between them.
    assert np.abs(firsts["led"] - firsts["home"]).max() > 1e-4
    assert json.loads((tmp_path / "led" / "meta" / "chatvla.json").read_text())["settings"]["driver"]


def test_other_settings_do_not_mix(tmp_path: Path):
    out = tmp_path / "set"
    parts = tmp_path / ".set.parts"
    parts.mkdir()
    (parts / "collection.json").write_text(json.dumps({"episodes": 2, "seed": 99, "settings": {}}))
    with pytest.raises(CollectError, match="other settings"):
        collect(out, episodes=1, seed=0, jobs=1, settings=SETTINGS)
    out.mkdir()
    with pytest.raises(CollectError, match="exists already"):
        collect(out, episodes=1, seed=0, jobs=1, settings=SETTINGS)


def test_pushes_come_and_go_and_spare_the_grippers():
    spec = robot_spec("arx_r5")
    push = Disturbance(spec, DisturbanceSettings(share=1.0, pushes_hz=2.0), np.random.default_rng(0))
    offsets = [np.zeros(spec.width) if (step := push.step()) is None else step for _ in range(2000)]
    size = np.abs(offsets).max(axis=0)
    grippers = [joint.unit == "m" for joint in spec.joints]
    assert (size[grippers] == 0).all()
    assert (size[~np.array(grippers)] > 0.01).all()
    assert np.abs(np.diff(offsets, axis=0)).max() < 0.02
    assert sum(not np.any(offset) for offset in offsets) > 200
    still = Disturbance(spec, DisturbanceSettings(share=0.0), np.random.default_rng(0))
    assert all(still.step() is None for _ in range(500))


def test_start_pose_is_near_home_and_within_limits():
    spec = robot_spec("arx_r5")
    poses = [start_pose(spec, DisturbanceSettings(), np.random.default_rng(seed)) for seed in range(20)]
    assert 5 <= sum(np.array_equal(pose, spec.home) for pose in poses) <= 15  # the rest around home
    for pose in poses:
        assert (np.abs(pose - np.array(spec.home)) <= 0.08 + 1e-9).all()
        assert (pose >= spec.lower).all()
        assert (pose <= spec.upper).all()


def test_wordings_vary_with_the_draw_and_fall_back_to_the_stored_text():
    assert len({reworded(FACTS, "", draw) for draw in range(30)}) > 20
    assert reworded(FACTS, "", 4) == reworded(FACTS, "", 4) == thought(FACTS, random.Random(4))
    assert reworded({"task": ""}, "as recorded", 4) == "as recorded"


@pytest.mark.parametrize(
    ("after", "same"),
    [
        ("The board reads 3+4, that is 7. Cards: 7 (left), 1 (middle), 12 (right). So it is the left card.", True),
        ("The board reads 3+4, that is 8. Cards: 8 (left), 1 (middle), 12 (right). So it is the left card.", False),
        ("The board reads 3+4, that is 7. Cards: 7 (left), 1 (middle), 12 (right). So it is the right card.", False),
        ("The board reads 3-4, that is 7. Cards: 7 (left), 1 (middle), 12 (right). So it is the left card.", False),
        ("", False),
    ],
)
def test_paraphrase_must_claim_the_same(after: str, same: bool):
    assert same_claims(TEXT, after) is same


class _Answer(BaseHTTPRequestHandler):
    said: str | None = ""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"choices": [{"message": {"content": self.said}}]} if self.said is not None else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_endpoint_is_asked_and_checked():
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    ask = EndpointParaphraser(f"http://127.0.0.1:{server.server_port}/v1", "any")
    try:
        _Answer.said = TEXT.replace("I should pick", "I will take the")
        assert ask(TEXT, 0) == _Answer.said
        _Answer.said = "Nonsense with 99."
        assert ask(TEXT, 0) == TEXT
        assert ask.kept == {"used": 1, "refused": 1}
        _Answer.said = None
        with pytest.raises(EndpointError, match="OpenAI-compatible"):
            ask(TEXT, 0)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(EndpointError, match="paraphrase-url"):
        ask(TEXT, 0)


def test_endpoint_that_is_not_there_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["math_match", "--episodes", "2", "--jobs", "2", "--out", str(tmp_path / "set")]
    assert main([*words, "--paraphrase-url", "http://127.0.0.1:9/v1", "--paraphrase-model", "any"]) == 1
    said = capsys.readouterr().err
    assert "demos: no answer from http://127.0.0.1:9/v1" in said
    assert "leave --paraphrase-url out" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--frame-hz", "0"), "argument --frame-hz: '0' is no number above 0"),
        (("--noise", "2"), "argument --noise: '2' is no number from 0 to 1"),
        (("--limit-s", "-1"), "argument --limit-s: '-1' is no number above 0"),
        (("--seed", "-1"), "argument --seed: '-1' is no whole number of at least 0"),
        (("--episodes", "0"), "argument --episodes: '0' is no whole number of at least 1"),
    ],
)
def test_numbers_that_nothing_can_be_recorded_with_are_refused(words, says, tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        main(["math_match", "--out", str(tmp_path / "set"), *words])
    assert says in capsys.readouterr().err


def test_endpoint_words_parts_and_the_rules_words_stay_where_it_does_not():
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    describe = EndpointDescriber(f"http://127.0.0.1:{server.server_port}/v1", "any")
    parts, rules = [(np.array([0.02, 0.0, 0.0]), True)], [("Move on", "Move forward.")]
    try:
        _Answer.said = 'Here: [{"step_description": "Approach", "reasoning": "It is ahead."}]'
        assert describe("go", parts, rules) == [("Approach", "It is ahead.")]
        for _Answer.said in ("no list", "[]", "[1]", None):
            assert describe("go", parts, rules) == rules
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert describe("go", parts, rules) == rules
    assert describe.counts == {"worded": 1, "kept": 5}
    # A server that never answered is no server.
    with pytest.raises(EndpointError, match="leave --describe-url out to describe by rules"):
        EndpointDescriber(f"http://127.0.0.1:{server.server_port}/v1", "any")("go", parts, rules)
