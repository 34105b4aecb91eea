# SPDX-License-Identifier: Apache-2.0
"""Run a checkpoint in lmms-eval (EvolvingLMMs-Lab/lmms-eval 0.7: lmms_eval.api.model.lmms).

    python -m lmms_eval --model chatvla --model_args checkpoint=FOLDER --tasks chartqa --batch_size 1

Where chatvla_eval is installed, lmms-eval finds it by its entry point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]

from chatvla_eval.understanding.command import asker

__all__ = ["ChatVLA", "manifest"]


def manifest() -> Any:
    """Return how lmms-eval finds the model: the payload of the entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

    return ModelManifest(model_id="chatvla", simple_class_path=f"{__name__}.{ChatVLA.__name__}")


class ChatVLA(lmms):
    """One of our checkpoints, asked as the benchmarks ask; one question at a time."""

    is_simple = True

    def __init__(self, checkpoint: str, batch_size: int | str = 1, device: str = "cpu", **_ignored: Any) -> None:
        """Load `checkpoint`; other arguments of lmms-eval have no meaning here. Raises PolicyUnavailableError."""
        super().__init__()
        self._asker = asker(checkpoint)
        self.batch_size_per_gpu = 1

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return the answer to each request: context, generation settings, images of a document."""
        found = []
        for request in requests:
            context, settings, doc_to_visual, doc_id, task, split = request.args
            visuals = _flat(doc_to_visual(self.task_dict[task][split][doc_id]))
            images = {f"image{k}": np.asarray(visual.convert("RGB")) for k, visual in enumerate(visuals)}
            answer = self._asker.ask(context.replace("<image>", "").strip(), images or None)
            found.append(_cut(answer, settings.get("until")).strip())
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered: a question is answered without the ones before it."""
        raise NotImplementedError("chatvla answers single questions; choose tasks of one round")

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: answers are written, not ranked."""
        raise NotImplementedError("chatvla writes answers; choose tasks with output_type generate_until")


def _flat(visuals: Any) -> list[Any]:
    """Return the images of a document as one list, without what is none."""
    if visuals is None:
        return []
    if not isinstance(visuals, (list, tuple)):
        return [visuals]
    return [image for part in visuals for image in _flat(part)]


def _cut(text: str, until: Any) -> str:
    """Return `text` up to the first of the texts that end an answer."""
    for end in [until] if isinstance(until, str) else until or []:
        if end:
            text = text.partition(end)[0]
    return text
