# SPDX-License-Identifier: Apache-2.0
"""Give a new small language model the circuits that any pretrained one has: look back, find the like, copy.

From random weights a small model finds "what stood beside this number?" only after very many steps (measured:
docs/training.md), and it is all that choosing a card takes. So a few heads begin wired, as weights that training may
change like all others (an idea of mimetic initialization, Trockman and Kolter 2023, arXiv:2305.09828; the circuit:
induction heads, Olsson et al. 2022, arXiv:2209.11895):

  layer 0     three heads look 1, 2 and 3 tokens back and write what they see into a place of its own
  layers 1, 2 head 0: what follows the last token that is like this one      (a b ... a -> b)
              head 1: what stands three after it                             (a ( c ... a -> c)
              head 2: what stood three before the last token like this one   (c :   a ... a -> c)
              head 3: what image tokens say that are like the token two back ("left: " -> the number that is seen there)
Tensors: V width of the language model, H width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from chatvla_policy.model.backbone import Backbone
from chatvla_policy.processing.tokens import TextCodec
from chatvla_training.tokenizer import WHOLE_NUMBERS

__all__ = ["compose_numbers", "scale_inputs", "wire_heads"]

WORD_GAIN = 5.0
"""Words begin this much longer, so that what a token is outweighs what the first layer adds."""
BRANCH_GAIN = 0.35
"""What a layer adds begins this much smaller: 1/sqrt(2 x layers)."""
OFFSETS = (1, 2, 3)
LOOK_BACK, LOOK_PAIRS = 5.0, 8
"""Strength of the look back, and over how many of the fastest rotations."""
IMAGE = 6.0
"""How much a match prefers image tokens, which all say that they are of an image (dense_objectives.py)."""
MATCH, SEEN, SAID = 1.5, 0.25, 0.4
"""Strength of a match; of what is written down by a look back; of what is copied. Soft: sharp wires do not train."""
PARTS = 5
"""Parts of the width, each as wide as a head: words, three looks back, what is copied."""


@torch.no_grad()
def scale_inputs(backbone: Backbone, gain: float) -> None:
    """Multiply attention and MLP input weights: transformers' 0.02 is small for a narrow model."""
    if math.isclose(gain, 1.0):
        return
    for name, parameter in backbone.named_parameters():
        if any(f"{part}_proj.weight" in name for part in ("q", "k", "v", "gate", "up")):
            parameter.mul_(gain)


@torch.no_grad()
def wire_heads(backbone: Backbone, image_id: int) -> bool:
    """Wire the first layers of the language model; return whether it has what it takes.

    `image_id` is the token that stands for an image.

    That is three layers, as many keys as queries, and a width of five heads.
    """
    text = backbone.config.text_config
    width = text.hidden_size // text.num_attention_heads
    if text.num_hidden_layers < 3 or text.num_attention_heads != text.num_key_value_heads:
        return False
    if text.num_attention_heads < PARTS:
        return False
    backbone.get_input_embeddings().weight.mul_(WORD_GAIN)
    layers = backbone.model.language_model.layers
    for layer in layers:
        layer.self_attn.o_proj.weight.mul_(BRANCH_GAIN)
        layer.mlp.down_proj.weight.mul_(BRANCH_GAIN)
    basis_VV = torch.linalg.qr(torch.randn(text.hidden_size, text.hidden_size))[0]
    words_HV, one_HV, two_HV, three_HV, copied_HV = basis_VV[: PARTS * width].split(width)
    theta = float(text.rope_parameters["rope_theta"])
    for head, (offset, seen_HV) in enumerate(zip(OFFSETS, (one_HV, two_HV, three_HV), strict=True)):
        _look_back(layers[0].self_attn, slice(head * width, (head + 1) * width), offset, theta)
        _copy(layers[0].self_attn, head, words_HV, SEEN * seen_HV)
    for layer in layers[1:3]:
        wires = (
            (words_HV, one_HV, copied_HV, copied_HV),
            (words_HV, three_HV, copied_HV, copied_HV),
            (words_HV, words_HV, three_HV, words_HV),
            (two_HV, words_HV, copied_HV, copied_HV),
        )
        for head, (asks_HV, like_HV, read_HV, written_HV) in enumerate(wires):
            rows = slice(head * width, (head + 1) * width)
            layer.self_attn.q_proj.weight[rows] = MATCH * asks_HV
            layer.self_attn.k_proj.weight[rows] = MATCH * like_HV
            _copy(layer.self_attn, head, read_HV, SAID * written_HV)
        # Only the last of the wires, whose rows these are, looks for image tokens.
        image_H = words_HV @ functional.normalize(backbone.get_input_embeddings().weight[image_id], dim=0)
        layer.self_attn.q_proj.bias[rows] = IMAGE * image_H / image_H.norm()
    return True


def _look_back(attention: torch.nn.Module, rows: slice, offset: int, theta: float) -> None:
    """Let a head's biases alone, turned by the rotary positions, choose the token `offset` before."""
    half = (rows.stop - rows.start) // 2
    angle = offset * theta ** (-torch.arange(LOOK_PAIRS) / half)
    query, key = torch.zeros(2 * half), torch.zeros(2 * half)
    key[:LOOK_PAIRS] = LOOK_BACK
    query[:LOOK_PAIRS] = LOOK_BACK * angle.cos()
    query[half : half + LOOK_PAIRS] = -LOOK_BACK * angle.sin()
    for projection, bias in ((attention.q_proj, query), (attention.k_proj, key)):
        projection.weight[rows] *= 0.1
        projection.bias[rows] = bias


def _copy(attention: torch.nn.Module, head: int, read_HV: Tensor, written_HV: Tensor) -> None:
    rows = slice(head * len(read_HV), (head + 1) * len(read_HV))
    attention.v_proj.weight[rows] = read_HV
    attention.o_proj.weight[:, rows] = written_HV.T


@torch.no_grad()
def compose_numbers(backbone: Backbone, codec: TextCodec) -> None:
    """Let the embedding of a number of two digits begin as the sum of its tens' and its units' (the digit's own).

    Numbers that share a digit are then alike from the start; tens are the digits' embeddings moved by half their width.
    """
    embedding_TV = backbone.get_input_embeddings().weight
    for number in WHOLE_NUMBERS:
        if len(token := codec.plain(number)) == 1:
            tens_V, units_V = (embedding_TV[codec.plain(digit)[0]] for digit in number)
            embedding_TV[token[0]] = (tens_V.roll(len(tens_V) // 2) + units_V) / math.sqrt(2)
