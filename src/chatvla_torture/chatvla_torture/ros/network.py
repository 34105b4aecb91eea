# SPDX-License-Identifier: Apache-2.0
"""Who can be reached: nodes stay on this host, no service moves the arm, remote endpoints are off and time out."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import numpy as np

from chatvla_cli.launch_graph import read_graph
from chatvla_cli.launch_verb import graph_names
from chatvla_cli.substitutions import package_share
from chatvla_msgs.srv import OverrideReasoning, ResetBench
from chatvla_torture.campaign import PartRun
from chatvla_torture.ros.rig import Rig
from chatvla_training.demos.endpoint import EndpointError, EndpointParaphraser

__all__ = ["run"]

_MOVED_RAD = 1e-6


def run(part: PartRun) -> None:
    """Run the part."""
    local = part.promise(
        "local", "in simulation every node of every launch graph is told to stay on this host", planned=1, unit="nodes"
    )
    still = part.promise(
        "still", "no service call moves an arm at rest", planned=part.scaled(30, full=200, least=5), unit="calls"
    )
    endpoint = part.promise(
        "endpoint", "a remote endpoint is off by default; one that hangs or floods times out", planned=3
    )
    _check_graphs(local)
    _check_endpoint(part, endpoint)
    with Rig(part.scratch / "rig") as rig:
        rig.start("sim", parameters={"camera_rate_hz": 5.0})
        rig.start("driver")
        rig.start("expert")
        rig.wait_ready("sim", "driver", "expert")
        time.sleep(1.0)
        before = np.array(rig.commanded)
        for case in part.cases(still.planned):
            random = case.random()
            kind = int(random.integers(4))
            if kind < 2:
                answer = rig.trigger(("stop", "clear_fault")[kind])
            elif kind == 2:
                request = ResetBench.Request(split="in_domain", seed=int(random.integers(100)))
                answer = rig.call(ResetBench, "sim/reset_bench", request, 30.0)
            else:
                override = OverrideReasoning.Request(scope=0, text="I should pick the left card.")
                answer = rig.call(OverrideReasoning, "override_reasoning", override, 30.0)
            still.require(answer is not None, f"service {kind} did not answer", case)
            moved = float(np.abs(np.array(rig.commanded) - before).max())
            still.require(moved < _MOVED_RAD, f"an arm moved by {moved} rad after service {kind}", case)
            still.hold()


def _check_graphs(local: object) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ROS_AUTOMATIC_DISCOVERY_RANGE"}
    share = package_share("chatvla", environment) / "launch"
    for name in graph_names(share):
        graph = read_graph(share / "graphs" / f"{name}.launch.yaml")
        if "robot" not in {argument.name for argument in graph.arguments}:
            continue
        for node in graph.resolve({}, environment).nodes:
            found = node.environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE")
            local.require(found == "LOCALHOST", f"{name}: {node.name} has discovery range {found}")  # type: ignore[attr-defined]
            local.hold()  # type: ignore[attr-defined]


def _check_endpoint(part: PartRun, endpoint: object) -> None:
    from chatvla_training.demos import cli

    source = Path(cli.__file__).read_text(encoding="utf-8")
    endpoint.require('"--paraphrase-url", default=""' in source, "a paraphraser is set by default")  # type: ignore[attr-defined]
    endpoint.hold()  # type: ignore[attr-defined]
    for behaviour in ("hang", "trickle", "flood"):
        with _Server(behaviour) as server:
            started_s = time.monotonic()
            try:
                EndpointParaphraser(f"http://127.0.0.1:{server.port}/v1", "m", timeout_s=1.0)("3+4=7, left card.", 0)
                error = ""
            except EndpointError as caught:
                error = str(caught)
            seconds = time.monotonic() - started_s
            endpoint.require(error and seconds < 15.0, f"{behaviour}: {error!r} after {seconds:.1f} s")  # type: ignore[attr-defined]
            endpoint.hold()  # type: ignore[attr-defined]


class _Server:
    """A server that accepts and then hangs, trickles a byte at a time, or floods."""

    def __init__(self, behaviour: str) -> None:
        self._behaviour = behaviour
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> _Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._socket.close()
        self._thread.join(5.0)

    def _serve(self) -> None:
        try:
            peer, _ = self._socket.accept()
            with peer:
                peer.recv(65536)
                if self._behaviour != "hang":
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                while not self._stop.is_set():
                    if self._behaviour == "flood":
                        peer.sendall(b"[" * 65536)
                    elif self._behaviour == "trickle":
                        peer.sendall(b" ")
                    self._stop.wait(0.0 if self._behaviour == "flood" else 0.2)
        except OSError:
            return
