# SPDX-License-Identifier: Apache-2.0
"""The reader of launch graphs: substitutions, conditions, groups, includes, parameters, and its errors."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from chatvla_cli.errors import UsageError
from chatvla_cli.launch_arguments import describe, given_values
from chatvla_cli.launch_graph import LaunchArgument, LaunchGraph, read_graph
from chatvla_cli.launch_verb import report
from chatvla_cli.substitutions import Context, GraphError, expand


def context(**variables: str) -> Context:
    return Context(variables=variables, environment={"HOME": "/home/me"}, folder=Path("/graphs"))


def graph(folder: Path, text: str) -> LaunchGraph:
    path = folder / "graph.launch.yaml"
    path.write_text(text)
    return read_graph(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$(var robot)", "sim"),
        ("a/$(var robot)/b", "a/sim/b"),
        ("$(env HOME)", "/home/me"),
        ("$(env NOWHERE fallback)", "fallback"),
        ("$(dirname)", "/graphs"),
        ("$(equals $(var robot) sim)", "true"),
        ("$(equals 1 1.0)", "true"),
        ("$(equals True 1)", "true"),
        ("$(not-equals $(var robot) sim)", "false"),
        ("$(and true $(equals a b))", "false"),
        ("$(or false true)", "true"),
        ("$(not true)", "false"),
        ("$(if $(equals $(var robot) sim) sim realsense)", "sim"),
        ("$(equals '$(var robot)' 'sim')", "true"),
        ('$(equals "two words" "two words")', "true"),
        (r"\$(var robot)", "$(var robot)"),
    ],
)
def test_expands(text: str, value: str) -> None:
    assert expand(text, context(robot="sim")) == value


@pytest.mark.parametrize("text", ["$(var absent)", "$(command ls)", "$(equals a)", "$(var robot", "$(not maybe)"])
def test_refuses_what_it_cannot_expand(text: str) -> None:
    with pytest.raises(GraphError):
        expand(text, context(robot="sim"))


NODE = """
launch:
- arg: {name: speed, default: '2'}
- arg: {name: label, default: '7'}
- arg: {name: active, default: 'true'}
- set_env: {name: COLOUR, value: red}
- group:
  - push_ros_namespace: {namespace: outer}
  - let: {name: label, value: inside}
  - node:
      pkg: demo
      exec: talker
      name: mouth
      namespace: inner
      if: $(var active)
      respawn: 'true'
      param:
      - {name: speed, value: $(var speed), type: float}
      - {name: label, value: $(var label), type: str}
      - {name: guessed, value: $(var speed)}
      remap: [{from: a, to: b/$(var label)}]
- node: {pkg: demo, exec: talker, param: [{name: label, value: $(var label), type: str}], on_exit: shutdown}
"""


def test_resolves_nodes_with_namespace_parameters_and_remappings(tmp_path: Path) -> None:
    mouth, talker = graph(tmp_path, NODE).resolve({}, {}).nodes
    assert (mouth.name, mouth.namespace, mouth.respawn) == ("mouth", "/outer/inner", True)
    assert mouth.parameters == {"speed": 2.0, "label": "inside", "guessed": 2}
    assert mouth.remappings == (("a", "b/inside"),)
    assert mouth.environment == {"COLOUR": "red"}
    assert (talker.namespace, talker.ends_launch) == ("/", True)
    assert talker.parameters == {"label": "7"}


def test_a_condition_leaves_a_node_out(tmp_path: Path) -> None:
    assert len(graph(tmp_path, NODE).resolve({"active": "false"}, {}).nodes) == 1


def test_a_value_of_the_wrong_type_names_the_parameter(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="speed"):
        graph(tmp_path, NODE).resolve({"speed": "fast"}, {})


NUMBERS = """launch:
- node:
    pkg: demo
    exec: talker
    param:
    - {name: seed, value: $(var seed), type: int}
    - {name: angle, value: $(var angle), type: float}
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [("seed", text) for text in ("0100", "1:30", "[3", "*3", "%3", "1e3", "1_0", "true", "")]
    + [("angle", text) for text in ('"', "nan", ".inf", "1:30", "[1]")],
)
def test_numbers_are_taken_as_they_are_written_or_not_at_all(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(GraphError, match=f"'{name}' must be of type"):
        graph(tmp_path, NUMBERS).resolve({"seed": "1", "angle": "2", name: text}, {})


def test_plain_numbers_are_read(tmp_path: Path) -> None:
    (node,) = graph(tmp_path, NUMBERS).resolve({"seed": "100", "angle": "-4e1"}, {}).nodes
    assert node.parameters == {"seed": 100, "angle": -40.0}


def test_results_of_an_earlier_launch_are_not_shown_as_this_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text("{}")
    report(tmp_path, since_s=time.time() + 60.0)
    assert capsys.readouterr().out == ""
    report(tmp_path, since_s=time.time())
    assert capsys.readouterr().out == f"Results: {tmp_path / 'results.json'}\n"


def test_includes_with_arguments(tmp_path: Path) -> None:
    (tmp_path / "inner.launch.yaml").write_text(
        "launch:\n- arg: {name: who, default: nobody}\n- node: {pkg: demo, exec: talker, name: $(var who)}\n"
    )
    outer = "launch:\n- include: {file: $(dirname)/inner.launch.yaml, arg: [{name: who, value: somebody}]}\n"
    assert [node.name for node in graph(tmp_path, outer).resolve({}, {}).nodes] == ["somebody"]


def test_unknown_tags_and_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="timer"):
        graph(tmp_path, "launch:\n- timer: {period: 1}\n").resolve({}, {})
    with pytest.raises(GraphError, match="respwan"):
        graph(tmp_path, "launch:\n- node: {pkg: a, exec: b, respwan: 'true'}\n").resolve({}, {})


ARGUMENTS = (
    LaunchArgument(name="split", default="in_domain", description="Which.", choices=("in_domain", "open_world")),
    LaunchArgument(name="trials", default="3", description="How many.", choices=()),
    LaunchArgument(name="namespace", default="chatvla", description="Where.", choices=()),
    LaunchArgument(name="seed", default="100", description="Which scenes.", choices=()),
)


def test_given_values() -> None:
    assert given_values(["split:=open_world", "trials:=4"], ARGUMENTS) == {"split": "open_world", "trials": "4"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("splt:=open_world", "did you mean 'split'"),
        ("colour:=red", "there are namespace, seed, split, trials"),
        ("split:=open_wrld", "did you mean 'open_world'"),
        ("split:=7", "there are in_domain, open_world"),
        ("open_world", "name:=value"),
    ],
)
def test_refusal_names_what_exists(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        given_values([word], ARGUMENTS)


@pytest.mark.parametrize("namespace", ["", "/", "chatvla", "/lab/bench_2", "_a", "A1_"])
def test_names_that_ros_takes_are_taken(namespace: str) -> None:
    assert given_values([f"namespace:={namespace}"], ARGUMENTS) == {"namespace": namespace}


@pytest.mark.parametrize(
    "namespace", ["my-bench", "2nd", "a//b", "a/", "/a/2", "a__b", "a b", "~", "é", "a" * 201, "a\n"]
)
def test_names_that_ros_refuses_are_refused(namespace: str) -> None:
    with pytest.raises(UsageError, match=r"is no ROS namespace: .* give one such as my_bench"):
        given_values([f"namespace:={namespace}"], ARGUMENTS)


def test_seeds_are_those_that_every_node_takes() -> None:
    for seed in ("0", "3000000000", str(10**12)):
        assert given_values([f"seed:={seed}"], ARGUMENTS) == {"seed": seed}
    for seed in ("-1", str(10**12 + 1), "2.5", "many", ""):
        with pytest.raises(UsageError, match="a whole number from 0 to 1000000000000"):
            given_values([f"seed:={seed}"], ARGUMENTS)


def test_description_lists_every_argument() -> None:
    text = describe(ARGUMENTS)
    assert "split:=in_domain | open_world   (default: in_domain)" in text
    assert "trials:=..." in text


@pytest.mark.parametrize("word", ["trials:=-1", "trials:=many", "view_height_deg:=-4", "view_height_deg:=171"])
def test_numbers_out_of_their_range_are_refused(word: str) -> None:
    declared = (*ARGUMENTS, LaunchArgument(name="view_height_deg", default="27.0", description="Height.", choices=()))
    with pytest.raises(UsageError, match=r"is no (number of trials|height of a view)"):
        given_values([word], declared)
    assert given_values(["trials:=0", "view_height_deg:=0"], declared)["trials"] == "0"


def test_an_argument_that_needs_ros_2s_own_launch_is_named(tmp_path: Path) -> None:
    (tmp_path / "inner.launch.yaml").write_text("launch:\n- set_remap: {from: a, to: b}\n")
    outer = "launch:\n- include: {file: $(dirname)/inner.launch.yaml, if: $(equals $(var camera) zed)}\n"
    wanted = r"^camera:=zed needs ROS 2's own launch: ros2 launch chatvla graph\.launch\.py \.\.\.$"
    with pytest.raises(GraphError, match=wanted):
        graph(tmp_path, outer).resolve({"camera": "zed"}, {})
