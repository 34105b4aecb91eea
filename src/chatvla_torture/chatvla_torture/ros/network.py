# SPDX-License-Identifier: Apache-2.0
"""Who can be reached: nodes stay on this host, no service moves the arm, remote endpoints are off and time out."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import numpy as np

from chatvla_cli.launch_graph import on_this_host, read_graph
from chatvla_cli.launch_verb import graph_names
from chatvla_cli.substitutions import package_share
from chatvla_msgs.srv import OverrideReasoning, ResetBench
from chatvla_policy.endpoint_answer import EndpointError
from chatvla_policy.vlm2vla.verifier import EndpointVerifier, VerifierError, VerifierSettings, make_verifier
from chatvla_torture.campaign import PartRun
from chatvla_torture.promise import Promise
from chatvla_torture.ros.rig import Rig
from chatvla_training.demos.endpoint import EndpointParaphraser

__all__ = ["run"]

_MOVED_RAD = 1e-6
_PATIENCE_S = 1.0
_BEHAVIOURS = ("hang", "trickle", "flood")


def run(part: PartRun) -> None:
    """Run the part."""
    local = part.promise(
        "local", "in simulation every node of every launch graph is told to stay on this host", planned=1, unit="nodes"
    )
    still = part.promise(
        "still", "no service call moves an arm at rest", planned=part.scaled(30, full=200, least=5), unit="calls"
    )
    endpoint = part.promise(
        "endpoint",
        "paraphraser and verifier are off by default, are sent no image untold, and a server that hangs, trickles or "
        "floods is given up",
        planned=2 + 2 * len(_BEHAVIOURS),
    )
    _check_graphs(local)
    _check_endpoints(endpoint)
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


def _check_graphs(local: Promise) -> None:
    """Resolve every graph with every value of its choices: whatever runs in simulation stays on this host."""
    share = package_share("chatvla", os.environ) / "launch"
    wanted = on_this_host(share)
    environment = {name: value for name, value in os.environ.items() if name not in wanted}
    local.planned = 0
    for name in graph_names(share):
        graph = read_graph(share / "graphs" / f"{name}.launch.yaml")
        choices = {argument.name: argument.choices for argument in graph.arguments if argument.choices}
        local.require("sim" in choices.get("robot", ()), f"graph {name} has no robot:=sim", None)
        free = {key: values for key, values in choices.items() if key not in ("robot", "camera")}
        variants = [{}, {"policy": "a/checkpoint"}, {"trials": "0"}]
        variants += [{key: value} for key, values in free.items() for value in values]
        local.notes[name] = f"{len(variants)} variants"
        for values in variants:
            for node in graph.resolve(values, environment).nodes:
                found = {key: node.environment.get(key) for key in wanted}
                local.require(found == wanted, f"{name} {values}: {node.name} has {found} instead of {wanted}")
                local.planned += 1
                local.hold()


def _check_endpoints(endpoint: Promise) -> None:
    from chatvla_training.demos import cli

    source = Path(cli.__file__).read_text(encoding="utf-8")
    endpoint.require('"--paraphrase-url", default=""' in source, "a paraphraser is set by default")
    nobody = make_verifier(VerifierSettings.from_environment({}), None, size=(28, 28))  # type: ignore[arg-type]
    endpoint.require(nobody is None, "a verifier is set by default")
    endpoint.hold(2)
    picture = [np.zeros((4, 4, 3), np.uint8)]

    def paraphrase(url: str) -> None:
        EndpointParaphraser(url, "m", timeout_s=_PATIENCE_S)("3+4=7, left card.", 0)

    def verify(url: str) -> None:
        settings = VerifierSettings(who=f"{url}#m", timeout_s=_PATIENCE_S)
        EndpointVerifier(url, "m", settings=settings).verdict("Was it done?", picture, seed=0)

    for who, ask in (("paraphraser", paraphrase), ("verifier", verify)):
        for behaviour in _BEHAVIOURS:
            with _Server(behaviour) as server:
                started_s = time.monotonic()
                try:
                    ask(f"http://127.0.0.1:{server.port}/v1")
                    error = ""
                except (EndpointError, VerifierError) as caught:
                    error = str(caught)
                seconds = time.monotonic() - started_s
                what = f"{who}, a server that {behaviour}s"
                endpoint.require(error and seconds < 10 * _PATIENCE_S, f"{what}: {error!r} after {seconds:.1f} s")
                endpoint.require(b"image" not in server.received, f"{what}: it was sent an image")
                endpoint.largest("longest s", round(seconds, 1))
                endpoint.hold()


class _Server:
    """A server that takes one request and then hangs, trickles a byte at a time, or floods."""

    def __init__(self, behaviour: str) -> None:
        self._behaviour = behaviour
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.received = b""
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
                self.received = peer.recv(2**22)
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
