# SPDX-License-Identifier: Apache-2.0
"""Read a launch graph in ROS 2's YAML launch format and resolve it into the nodes to start. No ROS needed.

Tags: arg, let, set_env, log, group with push_ros_namespace, include, node with param, remap, if and unless.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from chatvla_cli.substitutions import Context, GraphError, expand, is_true

__all__ = ["LaunchArgument", "LaunchGraph", "NodeSpec", "ResolvedGraph", "on_this_host", "read_graph"]

NODE_KEYS = frozenset(
    {"pkg", "exec", "name", "namespace", "args", "param", "remap", "env", "if", "unless", "output", "on_exit"}
    | {"respawn", "respawn_delay", "respawn_max_retries"}
)
_CHOICE = re.compile(r"\$\(equals \$\(var (\w+)\) (\w+)\)")
TYPES: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


class _RosLaunchNeededError(GraphError):
    """A tag or a file that only ROS 2's own launch reads."""


@dataclass(frozen=True, kw_only=True)
class LaunchArgument:
    """One declared argument of a graph."""

    name: str
    default: str | None
    """None: it must be given."""
    description: str
    choices: tuple[str, ...]
    """Empty: any value."""


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """One process to start."""

    package: str
    executable: str
    name: str
    namespace: str
    """Absolute, '/' for none."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parameter_files: tuple[str, ...] = ()
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    respawn: bool = False
    respawn_delay_s: float = 0.0
    respawn_max_retries: int = -1
    """-1: no bound."""
    ends_launch: bool = False
    """True for `on_exit: shutdown`: when it ends, the launch ends with its exit code."""


@dataclass(frozen=True, kw_only=True)
class ResolvedGraph:
    """What a graph comes to with its arguments given."""

    nodes: tuple[NodeSpec, ...]
    variables: Mapping[str, str]
    messages: tuple[str, ...]
    """Texts of `log`."""
    environment: Mapping[str, str]
    """What `set_env` changed outside of groups."""


@dataclass(frozen=True, kw_only=True)
class LaunchGraph:
    """A graph as its file says it."""

    path: Path
    entities: tuple[Mapping[str, Any], ...]

    @property
    def arguments(self) -> tuple[LaunchArgument, ...]:
        """The declared arguments, in the file's order."""
        return tuple(_argument(entity["arg"]) for entity in self.entities if "arg" in entity)

    def resolve(self, values: Mapping[str, str], environment: Mapping[str, str]) -> ResolvedGraph:
        """Return the nodes to start with `values` for the arguments; raise GraphError where the graph is at fault."""
        name = self.path.name.partition(".")[0]
        scope = _Scope(graph=name, folder=self.path.parent, variables=dict(values), environment=dict(environment))
        scope.run(self.entities)
        return ResolvedGraph(
            nodes=tuple(scope.nodes),
            variables=scope.variables,
            messages=tuple(scope.messages),
            environment=scope.changed_environment,
        )


def read_graph(path: Path) -> LaunchGraph:
    """Return the graph in the YAML file at `path`."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise GraphError(f"cannot read the launch graph {path}: {error}") from error
    if not isinstance(tree, dict) or list(tree) != ["launch"] or not isinstance(tree["launch"], list):
        raise GraphError(f"{path}: expected one root 'launch' holding a list")
    entities = tuple(tree["launch"])
    for entity in entities:
        if not isinstance(entity, dict) or len(entity) != 1:
            raise GraphError(f"{path}: each entry holds one tag, got {entity!r}")
    return LaunchGraph(path=path, entities=entities)


def on_this_host(launch_folder: Path) -> Mapping[str, str]:
    """Return the environment in which launches in simulation keep DDS on this host, whatever was chosen before."""
    return read_graph(launch_folder / "graphs" / "on_this_host.launch.yaml").resolve({}, {}).environment


def _argument(body: Mapping[str, Any]) -> LaunchArgument:
    default = body.get("default")
    return LaunchArgument(
        name=body["name"],
        default=None if default is None else str(default),
        description=" ".join(str(body.get("description", "")).split()),
        choices=tuple(str(choice["value"]) for choice in body.get("choice", ())),
    )


@dataclass(kw_only=True)
class _Scope:
    """The state while a graph is walked: `group` copies it, `include` starts from a copy."""

    graph: str
    """Name of the graph that is launched."""
    folder: Path
    variables: dict[str, str]
    environment: dict[str, str]
    namespace: str = "/"
    changed_environment: dict[str, str] = field(default_factory=dict)
    nodes: list[NodeSpec] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def text(self, value: object) -> str:
        """Return `value` as launch text, substitutions expanded."""
        word = str(value).lower() if isinstance(value, bool) else str(value)
        return expand(word, Context(variables=self.variables, environment=self.environment, folder=self.folder))

    def applies(self, body: Mapping[str, Any]) -> bool:
        """Return whether the conditions of a tag hold."""
        if "if" in body and not is_true(self.text(body["if"])):
            return False
        return "unless" not in body or not is_true(self.text(body["unless"]))

    def run(self, entities: object) -> None:
        """Walk a list of tags in order."""
        if not isinstance(entities, list | tuple):
            raise GraphError(f"expected a list of tags, got {entities!r}")
        for entity in entities:
            ((tag, body),) = entity.items()
            action = getattr(self, f"on_{tag.replace('-', '_')}", None)
            if action is None:
                raise _RosLaunchNeededError(f"tag '{tag}' is read by ROS 2's own 'ros2 launch' only; use that")
            if isinstance(body, list) or self.applies(body):
                action(body)

    def on_arg(self, body: Mapping[str, Any]) -> None:
        """Take the argument's default where no value was given."""
        argument = _argument(body)
        if argument.name not in self.variables:
            if argument.default is None:
                raise GraphError(f"argument '{argument.name}' has no default and was not given")
            self.variables[argument.name] = self.text(argument.default)

    def on_let(self, body: Mapping[str, Any]) -> None:
        """Set a variable."""
        self.variables[self.text(body["name"])] = self.text(body["value"])

    def on_set_env(self, body: Mapping[str, Any]) -> None:
        """Set an environment variable for the nodes that follow in this scope."""
        name, value = self.text(body["name"]), self.text(body["value"])
        self.environment[name] = self.changed_environment[name] = value

    def on_log(self, body: Mapping[str, Any]) -> None:
        """Keep a message for the terminal."""
        self.messages.append(self.text(body["message"]))

    def on_push_ros_namespace(self, body: Mapping[str, Any]) -> None:
        """Put the nodes that follow in a namespace below the present one."""
        self.namespace = _joined(self.namespace, self.text(body["namespace"]))

    def on_group(self, body: Any) -> None:
        """Walk the children with a copy of the state: what they set ends with the group."""
        inner = replace(
            self,
            variables=dict(self.variables),
            environment=dict(self.environment),
            changed_environment=dict(self.changed_environment),
        )
        inner.run(body if isinstance(body, list) else body["children"])

    def on_include(self, body: Mapping[str, Any]) -> None:
        """Walk another YAML graph with the arguments given here."""
        path = Path(self.text(body["file"]))
        if path.suffix not in {".yaml", ".yml"}:
            raise _RosLaunchNeededError(f"{path} can only be included by ROS 2's own 'ros2 launch'")
        given = {self.text(item["name"]): self.text(item["value"]) for item in body.get("arg", ())}
        variables = {**self.variables, **given}
        try:
            replace(self, folder=path.parent, variables=variables).run(read_graph(path).entities)
        except _RosLaunchNeededError as error:
            chosen = " ".join(f"{name}:={value}" for name, value in _CHOICE.findall(str(body.get("if", ""))))
            if not chosen:
                raise
            needed = f"{chosen} needs ROS 2's own launch: ros2 launch chatvla {self.graph}.launch.py ..."
            raise GraphError(needed) from error

    def on_node(self, body: Mapping[str, Any]) -> None:
        """Add a node."""
        if unknown := set(body) - NODE_KEYS:
            raise GraphError(f"a node has unknown keys: {', '.join(sorted(unknown))}")
        files = [self.text(item["from"]) for item in body.get("param", ()) if "from" in item]
        executable = self.text(body["exec"])
        self.nodes.append(
            NodeSpec(
                package=self.text(body["pkg"]),
                executable=executable,
                name=self.text(body.get("name", executable)),
                namespace=_joined(self.namespace, self.text(body.get("namespace", ""))),
                parameters={item["name"]: self._value(item) for item in body.get("param", ()) if "name" in item},
                parameter_files=tuple(files),
                remappings=tuple((self.text(i["from"]), self.text(i["to"])) for i in body.get("remap", ())),
                arguments=tuple(self.text(body.get("args", "")).split()),
                environment={
                    **self.changed_environment,
                    **{self.text(item["name"]): self.text(item["value"]) for item in body.get("env", ())},
                },
                respawn=is_true(self.text(body.get("respawn", "false"))),
                respawn_delay_s=float(body.get("respawn_delay", 0.0)),
                respawn_max_retries=int(body.get("respawn_max_retries", -1)),
                ends_launch=body.get("on_exit") == "shutdown",
            )
        )

    def _value(self, item: Mapping[str, Any]) -> object:
        """Return a parameter's value, of the stated type or of the type YAML gives its text."""
        raw, kind = item["value"], item.get("type")
        if not isinstance(raw, str):
            return raw
        text = self.text(raw)
        if kind == "str":
            return text
        wanted = TYPES.get(kind or "", object)
        try:
            value = _number(text, wanted) if wanted in (int, float) else yaml.safe_load(text)
        except (ValueError, yaml.YAMLError):
            value = None
        if not isinstance(value, wanted):
            raise GraphError(f"'{item['name']}' must be of type {kind}, got '{text}'")
        return text if value is None else value


def _number(text: str, kind: type) -> int | float:
    """Return a plainly written number. YAML 1.1 would read 0100 as 64 and 1:30 as 90. Raises ValueError."""
    number = kind(text)
    if kind is int and str(number) != text.strip().removeprefix("+"):
        raise ValueError(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _joined(base: str, namespace: str) -> str:
    if not namespace:
        return base
    return namespace if namespace.startswith("/") else f"{base.rstrip('/')}/{namespace}"
