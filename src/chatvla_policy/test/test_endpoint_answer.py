# SPDX-License-Identifier: Apache-2.0
"""Remote endpoints: time and memory are bounded whatever the server does, images stay here unless told otherwise."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from chatvla_policy.endpoint_answer import EndpointError, chat_answer
from chatvla_policy.vlm2vla.verifier import EndpointVerifier, VerifierError, VerifierSettings, make_verifier

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ANSWER = json.dumps({"choices": [{"message": {"content": " 3 and 4 make 7 "}}]}).encode()
BEHAVIOURS = {
    "sound": [HEAD + b"Content-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER],
    "hang": [b""],
    "trickling body": [HEAD + b"\r\n", *[b" "] * 1000],
    "trickling head": [b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"[k % 8 : k % 8 + 1] for k in range(1000)]],
    "flood": [HEAD + b"\r\n", *[b"[" * 2**20] * 50],
    "cut off": [HEAD + b"Content-Length: 1000\r\n\r\n{"],
    "no HTTP": [b"\x00\xff\r\n\r\n"],
    "deep": [HEAD + b"\r\n" + b"[" * 200_000],
    "redirection": [b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"],
}


def whole_request(peer: socket.socket) -> bytes:
    """Return head and body, however many parts they come in."""
    data = b""
    while part := peer.recv(2**22):
        data += part
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return data


@contextmanager
def server(behaviour: str) -> Iterator[tuple[str, list[bytes]]]:
    """Answer one request as told; yields the address and what was received."""
    listener = socket.create_server(("127.0.0.1", 0))
    received: list[bytes] = []
    stop = threading.Event()

    def serve() -> None:
        try:
            peer, _ = listener.accept()
            with peer:
                received.append(whole_request(peer))
                for part in BEHAVIOURS[behaviour]:
                    peer.sendall(part)
                    if len(part) <= 1 and stop.wait(0.05):
                        return
                if behaviour == "hang":
                    stop.wait(10.0)
        except OSError:
            return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", received
    stop.set()
    listener.close()
    thread.join(5.0)


def test_a_sound_answer_comes_back() -> None:
    with server("sound") as (url, received):
        assert chat_answer(f"{url}/chat/completions", {"model": "m"}, key="k", timeout_s=5.0) == "3 and 4 make 7"
    assert b"Bearer k" in received[0]


@pytest.mark.parametrize("behaviour", [name for name in BEHAVIOURS if name != "sound"])
def test_every_other_answer_is_given_up_in_time(behaviour: str) -> None:
    with server(behaviour) as (url, _):
        started_s = time.monotonic()
        with pytest.raises(EndpointError, match=r"127\.0\.0\.1"):
            chat_answer(f"{url}/chat/completions", {"model": "m"}, key="", timeout_s=0.5)
        assert time.monotonic() - started_s < 2.5


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://", "nothing", "http://127.0.0.1:x/"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(EndpointError):
        chat_answer(url, {}, key="", timeout_s=0.5)


@pytest.mark.parametrize("told", [False, True])
def test_the_verifier_sends_images_only_when_told(told: bool) -> None:
    with server("hang") as (url, received):
        settings = VerifierSettings(who=f"{url}#m", timeout_s=0.3, send_images=told)
        judge = EndpointVerifier(url, "m", settings=settings)
        with pytest.raises(VerifierError, match="time is over"):
            judge.verdict("Was it done?", [np.zeros((4, 4, 3), np.uint8)], seed=0)
    assert (b"image" in received[0]) == told


def test_nobody_is_asked_by_default() -> None:
    assert make_verifier(VerifierSettings.from_environment({}), None, size=(28, 28)) is None  # type: ignore[arg-type]
    assert not VerifierSettings.from_environment({}).send_images
