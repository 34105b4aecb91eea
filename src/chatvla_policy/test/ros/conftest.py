# SPDX-License-Identifier: Apache-2.0
"""A robot peer and a policy node in this process, over real DDS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.action import ActionClient  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from chatvla_control.ros.spin import serving  # noqa: E402
from chatvla_msgs.action import FollowInstruction  # noqa: E402
from chatvla_policy.ros.policy_node import PolicyNode  # noqa: E402

from ..runtime.swinging import SPEC, SwingingPolicy  # noqa: E402
from .robot_peer import RobotPeer  # noqa: E402


@pytest.fixture(scope="module")
def ros(ros_domain: int) -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture
def robot(ros: None) -> Iterator[RobotPeer]:
    peer = RobotPeer()
    yield peer
    peer.close()


class TalkingPolicy(SwingingPolicy):
    """A swinging policy that also answers, and knows its robot and camera."""

    def __init__(self) -> None:
        super().__init__()
        self.setup = SimpleNamespace(spec=SPEC, cameras=("top",))
        self.answer = "no"
        self.asked: list[str] = []

    def ask(self, question: str, images: dict[str, Any]) -> str:
        self.asked.append(question)
        return f"{self.answer}, {sorted(images)}"


class Served:
    """A policy node in a thread, with a client of its action."""

    def __init__(self, peer: RobotPeer, served_policy: Any, loader: Any = None, /, **parameters: Any) -> None:
        self.robot, self.policy = peer, served_policy
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        if served_policy is not None:
            loader = lambda given: served_policy  # noqa: E731
        options = {} if loader is None else {"loader": loader}
        self.node = PolicyNode(parameter_overrides=overrides, **options)
        self._ends = ExitStack()
        self._ends.enter_context(serving(self.node, farewell=self.node.farewell))
        self.action = ActionClient(peer.node, FollowInstruction, "follow_instruction")

    def send(self, **goal: Any) -> Any:
        assert self.robot.until(self.action.server_is_ready), self.robot.health()
        handle = self.robot.call(self.action.send_goal_async(FollowInstruction.Goal(**goal)))
        assert handle.accepted
        return handle

    def result(self, handle: Any, timeout_s: float = 15.0) -> FollowInstruction.Result:
        return self.robot.call(handle.get_result_async(), timeout_s).result

    def service(self, kind: type, name: str, **request: Any) -> Any:
        client = self.robot.node.create_client(kind, name)
        assert self.robot.until(client.service_is_ready)
        response = self.robot.call(client.call_async(kind.Request(**request)))
        self.robot.node.destroy_client(client)
        return response

    def end(self) -> None:
        """End what serves the node, as a signal does."""
        self._ends.close()

    def close(self) -> None:
        # The client ends with the peer's node, once nothing spins it any more.
        self.end()
        self.node.close()


@pytest.fixture
def serve(robot: RobotPeer) -> Iterator[Callable[..., Served]]:
    """Return a starter of policy nodes; keywords are parameters. Without policy and loader a talking one is served."""
    served: list[Served] = []

    def start(policy: Any = None, *, load: bool = False, loader: Any = None, **parameters: Any) -> Served:
        policy = None if load or loader else policy or TalkingPolicy()
        served.append(Served(robot, policy, loader, **parameters))
        return served[-1]

    yield start
    for each in served:
        each.close()
