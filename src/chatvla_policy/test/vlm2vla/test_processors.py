# SPDX-License-Identifier: Apache-2.0
"""Processors of base models, put together without torchvision where it is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoProcessor, Qwen3VLConfig

from chatvla_policy.model.tiny import make_tiny_folder
from chatvla_policy.vlm2vla.processors import ProcessorError, load_processor


@pytest.mark.parametrize("error", [ImportError, ValueError])
def test_a_qwen3_needs_no_torchvision(error, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuses(folder: Path):
        raise error("torchvision is missing")

    monkeypatch.setattr(AutoProcessor, "from_pretrained", refuses)
    folder = make_tiny_folder(tmp_path)
    before = json.loads((folder / "config.json").read_text())
    wanted = load_processor(folder)
    Qwen3VLConfig().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen3_vl" != before["model_type"]
    found = load_processor(folder)
    pictures = [np.full((56, 84, 3), 90, np.uint8)]
    inputs = [processor("What is there?", pictures) for processor in (wanted, found)]
    assert all((inputs[0][key] == inputs[1][key]).all() for key in inputs[0])


def test_a_base_without_a_chat_template_is_refused_and_nothing_else_tried(tmp_path: Path):
    folder = make_tiny_folder(tmp_path)
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    words = json.loads(path.read_text())
    words.pop("chat_template", None)
    path.write_text(json.dumps(words))
    with pytest.raises(ProcessorError, match="no chat template"):
        load_processor(folder)
