# SPDX-License-Identifier: Apache-2.0
"""Ask an OpenAI-compatible chat endpoint for one text, in bounded time and memory whatever the server does."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["LARGEST_ANSWER", "EndpointError", "chat_answer"]

LARGEST_ANSWER = 2**20
"""Bytes of an answer that are read at most."""


class EndpointError(RuntimeError):
    """The endpoint can't be reached in time or does not answer as agreed; the message says which."""


def chat_answer(url: str, body: Mapping[str, Any], *, key: str, timeout_s: float) -> str:
    """Return the text that the server at `url` (with /chat/completions) answers to `body`. Raises EndpointError.

    `key` is sent as bearer token unless it is empty. Neither redirections nor proxies are followed: what is sent goes
    to the server that was named.
    """
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        status, data = _post(url, json.dumps(body).encode(), headers, timeout_s)
        if status != http.client.OK:
            raise EndpointError(f"{url} answers with HTTP status {status}: {data[:200]!r}")
        if len(data) > LARGEST_ANSWER:
            raise EndpointError(f"the answer of {url} has more than {LARGEST_ANSWER} bytes")
        return str(json.loads(data)["choices"][0]["message"]["content"].strip())
    except (OSError, http.client.HTTPException) as error:
        raise EndpointError(f"no answer from {url} in {timeout_s:g} s: {error!s:.300}") from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise EndpointError(f"{url} did not answer as an OpenAI-compatible endpoint: {error!r:.300}") from error


def _post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
    """Return status and at most one byte more than LARGEST_ANSWER of the answer."""
    parts = urlsplit(url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    if parts.scheme not in kinds or not parts.hostname:
        raise ValueError(f"{url!r} is no http or https address")
    connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=timeout_s)
    late, sockets = threading.Event(), list[socket.socket]()

    def hang_up() -> None:
        late.set()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    # The socket's own time-out counts from byte to byte only.
    watchdog = threading.Timer(timeout_s, hang_up)
    watchdog.daemon = True
    watchdog.start()
    try:
        connection.connect()
        # An answer without a length takes the socket away from its connection.
        sockets.append(connection.sock)
        connection.request("POST", parts.path, body, dict(headers))
        answer = connection.getresponse()
        data = answer.read(LARGEST_ANSWER + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        over = late.is_set() or isinstance(error, TimeoutError)
        raise OSError("the time is over" if over else str(error)) from error
    finally:
        watchdog.cancel()
        connection.close()
    if late.is_set():
        raise OSError("the time is over")
    return answer.status, data
