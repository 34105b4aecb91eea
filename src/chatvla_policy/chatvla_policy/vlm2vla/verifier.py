# SPDX-License-Identifier: Apache-2.0
"""Judge from the images before and after whether a subtask was done: the model itself, another one, or a server.

None is asked unless told to: by the argument of `load`, or by the variable CHATVLA_VERIFIER ("self", a base folder, or
an endpoint such as http://host:8000/v1#model). A server gets no image unless CHATVLA_VERIFIER_IMAGES=1, a key is read
from CHATVLA_VERIFIER_KEY, and its answer is waited for CHATVLA_VERIFIER_TIMEOUT_S seconds (10).
(VLM2VLA, section 3.1 and appendix D.5)
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chatvla_policy.endpoint_answer import EndpointError, chat_answer
from chatvla_policy.vlm2vla.image_text_model import ImageTextModel
from chatvla_policy.vlm2vla.text_forms import MalformedError, Verdict, parse_verdict
from chatvla_policy.vlm2vla.writer import Images, Writer

__all__ = ["EndpointVerifier", "ModelVerifier", "Verifier", "VerifierError", "VerifierSettings", "make_verifier"]


class VerifierError(RuntimeError):
    """No verdict could be had; the message says why. The policy then goes on to the next subtask."""


class Verifier(Protocol):
    """Whoever judges."""

    def verdict(self, question: str, images: Images, *, seed: int) -> Verdict:
        """Return the verdict on images (RGB), all views before, then all after. Raises VerifierError."""
        ...


@dataclass(frozen=True, kw_only=True)
class VerifierSettings:
    """Who judges, if anyone."""

    who: str = ""
    """"" for nobody, "self", a folder or hub name of a base model, or an http(s) address with #model."""
    timeout_s: float = 10.0
    send_images: bool = False
    key: str = ""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> VerifierSettings:
        """Return what the environment says. Raises ValueError for a timeout that is no number."""
        return cls(
            who=variables.get("CHATVLA_VERIFIER", ""),
            timeout_s=float(variables.get("CHATVLA_VERIFIER_TIMEOUT_S", "10")),
            send_images=variables.get("CHATVLA_VERIFIER_IMAGES", "") == "1",
            key=variables.get("CHATVLA_VERIFIER_KEY", ""),
        )


class ModelVerifier:
    """A local model judges, the policy's own or another."""

    def __init__(self, model: Writer, *, temperature: float = 0.0, max_new_tokens: int = 200) -> None:
        """Ask `model`."""
        self._model, self._temperature, self._longest = model, temperature, max_new_tokens

    def verdict(self, question: str, images: Images, *, seed: int) -> Verdict:
        """Return the model's verdict. Raises VerifierError when its answer is malformed."""
        text = self._model.write(
            question, images, temperature=self._temperature, top_p=1.0, max_new_tokens=self._longest, seed=seed
        )
        return _parsed(text)


class EndpointVerifier:
    """A server with OpenAI's chat interface judges."""

    def __init__(self, url: str, model: str, *, settings: VerifierSettings, temperature: float = 0.0) -> None:
        """Ask `model` at `url`, such as http://host:8000/v1."""
        self._url, self._model, self._settings = url.rstrip("/") + "/chat/completions", model, settings
        self._temperature = temperature

    def verdict(self, question: str, images: Images, *, seed: int) -> Verdict:
        """Return the server's verdict. Raises VerifierError when there is none in time or it is malformed."""
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        if self._settings.send_images:
            content += [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
        body = {
            "model": self._model,
            "seed": seed,
            "temperature": self._temperature,
            "messages": [{"role": "user", "content": content}],
        }
        try:
            said = chat_answer(self._url, body, key=self._settings.key, timeout_s=self._settings.timeout_s)
        except EndpointError as error:
            raise VerifierError(str(error)) from error
        return _parsed(said)


def make_verifier(
    settings: VerifierSettings, own: ImageTextModel, *, size: tuple[int, int], temperature: float = 0.0
) -> Verifier | None:
    """Return who judges, or None for nobody. Raises ValueError for an address without a model's name."""
    if not settings.who:
        return None
    if settings.who == "self":
        return ModelVerifier(own, temperature=temperature)
    if settings.who.startswith(("http://", "https://")):
        url, _, model = settings.who.partition("#")
        if not model:
            raise ValueError(f"verifier {settings.who!r} names no model; write ADDRESS#MODEL")
        return EndpointVerifier(url, model, settings=settings, temperature=temperature)
    other = ImageTextModel.load(settings.who, adapter=None, size=size, device=str(own.device))
    return ModelVerifier(other, temperature=temperature)


def _parsed(text: str) -> Verdict:
    start, stop = text.find("{"), text.rfind("}")
    try:
        return parse_verdict(text[start : stop + 1])
    except MalformedError as error:
        raise VerifierError(str(error)) from error


def _data_url(image: NDArray[np.uint8]) -> str:
    stream = BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
