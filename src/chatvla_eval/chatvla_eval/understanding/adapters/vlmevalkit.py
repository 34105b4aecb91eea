# SPDX-License-Identifier: Apache-2.0
"""Run a checkpoint in VLMEvalKit (open-compass/VLMEvalKit, interface of August 2026: vlmeval.vlm.base.BaseModel).

    python -m chatvla_eval.understanding.adapters.vlmevalkit PATH/TO/VLMEvalKit/run.py CHECKPOINT --data ChartQA_TEST

registers the checkpoint as model `chatvla` and then runs VLMEvalKit's own run.py with the remaining arguments.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from vlmeval.vlm.base import BaseModel  # pyright: ignore[reportMissingImports]

from chatvla_eval.understanding.command import asker

__all__ = ["ChatVLA", "main", "register"]

MODEL_NAME = "chatvla"


class ChatVLA(BaseModel):
    """One of our checkpoints, asked as the benchmarks ask."""

    is_api = False
    INTERLEAVE = False
    """Images come first, then the text: that is how the checkpoint was trained."""

    def __init__(self, checkpoint: str, **_ignored: Any) -> None:
        """Load `checkpoint`. Raises PolicyUnavailableError."""
        super().__init__()
        self._asker = asker(checkpoint)

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """Return the answer to a message of text and image parts."""
        from PIL import Image

        texts = [part["value"] for part in message if part["type"] == "text"]
        images = {}
        for number, path in enumerate(part["value"] for part in message if part["type"] == "image"):
            with Image.open(path) as picture:
                images[f"image{number}"] = np.asarray(picture.convert("RGB"))
        return self._asker.ask("\n".join(texts), images or None).strip()


def register(checkpoint: str, name: str = MODEL_NAME) -> None:
    """Make `checkpoint` known to VLMEvalKit as model `name`."""
    from vlmeval.config import supported_VLM  # pyright: ignore[reportMissingImports]

    supported_VLM[name] = partial(ChatVLA, checkpoint=checkpoint)


def main(argv: Sequence[str] | None = None) -> None:
    """Register the checkpoint and run VLMEvalKit's run.py."""
    run, checkpoint, *rest = sys.argv[1:] if argv is None else argv
    register(checkpoint)
    sys.argv = [run, "--model", MODEL_NAME, *rest]
    runpy.run_path(run, run_name="__main__")


if __name__ == "__main__":
    main()
