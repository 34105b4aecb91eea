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

For toys, whose rectangles stand behind a label ("red car", two marks, "(432,564),(486,628)"), these are instead:

  layer 0     four heads look 1, 2, 3 and 4 tokens back; the first two note numbers, the others names
  layers 1, 2 head 0: what stood behind the like of the last number (432,    a , ... a , -> what followed)
              head 1: what stood four after the like of the token three back (car two marks ( -> 432;  564 ) , ( -> 486)
              head 2: what image tokens say that are like the tokens three and four back: the label, or the top
              head 3: what image tokens say that are like the last token: the left side, or the right
              head 4: as the first head 0 above, for numbers

An image token of a toy says eight words at once, and in the 32 numbers that a head compares, words at random disturb
one another so much that the wires found a label's tokens no better than by chance in training (docs/training.md). So
names and numbers begin in places of their own there (`Layout`): a sum of words can be taken apart again.
Tensors: V width of the language model, H width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from chatvla_policy.model.backbone import Backbone
from chatvla_policy.processing.tokens import TextCodec
from chatvla_training.tokenizer import WHOLE_NUMBERS

__all__ = [
    "NUMBERS",
    "RECTANGLES",
    "Circuit",
    "Wire",
    "compose_numbers",
    "compose_sides",
    "compose_words",
    "scale_inputs",
    "wire_heads",
]

WORD_GAIN = 5.0
"""Words begin this much longer, so that what a token is outweighs what the first layer adds."""
BRANCH_GAIN = 0.35
"""What a layer adds begins this much smaller: 1/sqrt(2 x layers)."""
LOOK_BACK, LOOK_PAIRS = 5.0, 8
"""Strength of the look back, and over how many of the fastest rotations."""
IMAGE = 6.0
"""How much a match prefers image tokens, which all say that they are of an image (dense_objectives.py)."""
MATCH, SEEN, SAID = 1.5, 0.25, 0.4
"""Strength of a match; of what is written down by a look back; of what is copied. Soft: sharp wires do not train."""
SMOOTH = 2.0
"""How far apart numbers of `compose_sides` are that begin half alike."""
OWN = 0.4
"""How much of its own a word with a space before it keeps."""
FAINT = 0.3
"""How much other words keep in the parts where names and numbers lie (`Layout`)."""
NAMED, SOUGHT = 0.7, 0.5
"""How much of a name or number lies in a place of its own; how much of a number that is sought like a name."""
NOTED = 1.0
"""Strength of a match between two looks back, which are both larger than words."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """One head: which parts of the asking token it compares with which of the others, and what it copies whither."""

    asks: tuple[int, ...]
    """0 for the word itself, else a look so many tokens back."""
    like: int
    read: int = -1
    """-1: as much of the word as shows when a token is said."""
    written: int = -1
    match: float = MATCH
    image: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """What begins wired. The width is parted by heads: words, one part a look, what is copied."""

    offsets: tuple[int, ...]
    """How far back the first layer looks."""
    wires: tuple[Wire, ...]
    """Heads of the second and third layer."""
    notes: tuple[int, ...] = ()
    """What each look writes down of what it sees: as `Wire.read`; nothing: words."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Words that begin with places of their own in the parts of the width, so that sums of them can be read."""

    names: tuple[tuple[int, ...], ...]
    """Tokens; those of one row are one name."""
    numbers: tuple[tuple[int, ...], ...]
    """Tokens of each side's numbers, in order."""
    sought: int
    """Of which of the sides the looks for names find numbers, too."""


NUMBERS = Circuit(
    offsets=(1, 2, 3),
    wires=(
        Wire(asks=(0,), like=1),
        Wire(asks=(0,), like=3),
        Wire(asks=(0,), like=0, read=3, written=0),
        Wire(asks=(2,), like=0, image=IMAGE),
    ),
)
RECTANGLES = Circuit(
    offsets=(1, 2, 3, 4),
    wires=(
        Wire(asks=(1,), like=2, match=NOTED),
        Wire(asks=(3,), like=4, match=NOTED),
        Wire(asks=(3, 4), like=0, image=6 * IMAGE),
        Wire(asks=(1,), like=-1, match=2.0, image=4 * IMAGE),
        Wire(asks=(-1,), like=1),
    ),
    notes=(-1, -1, 0, 0),
)


@torch.no_grad()
def scale_inputs(backbone: Backbone, gain: float) -> None:
    """Multiply attention and MLP input weights: transformers' 0.02 is small for a narrow model."""
    if math.isclose(gain, 1.0):
        return
    for name, parameter in backbone.named_parameters():
        if any(f"{part}_proj.weight" in name for part in ("q", "k", "v", "gate", "up")):
            parameter.mul_(gain)


@torch.no_grad()
def wire_heads(backbone: Backbone, image_id: int, circuit: Circuit = NUMBERS, layout: Layout | None = None) -> bool:
    """Wire the first layers of the language model; return whether it has what it takes.

    `image_id` is the word that image tokens say and other tokens do not; `layout` moves words to places of their own.

    It takes three layers, as many keys as queries, and a width of as many heads as the circuit has parts.
    """
    text = backbone.config.text_config
    width = text.hidden_size // text.num_attention_heads
    if text.num_hidden_layers < 3 or text.num_attention_heads != text.num_key_value_heads:
        return False
    parts = 2 + len(circuit.offsets)
    if text.num_attention_heads < parts:
        return False
    backbone.get_input_embeddings().weight.mul_(WORD_GAIN)
    layers = backbone.model.language_model.layers
    for layer in layers:
        layer.self_attn.o_proj.weight.mul_(BRANCH_GAIN)
        layer.mlp.down_proj.weight.mul_(BRANCH_GAIN)
    basis_VV = torch.linalg.qr(torch.randn(text.hidden_size, text.hidden_size))[0]
    words_HV, *looks, copied_HV = basis_VV[: parts * width].split(width)
    part = {0: words_HV, -1: copied_HV, **dict(zip(circuit.offsets, looks, strict=True))}
    if layout is not None:
        _lay_out(backbone.get_input_embeddings().weight, image_id, layout, words_HV, copied_HV)
    theta = float(text.rope_parameters["rope_theta"])
    notes = circuit.notes or (0,) * len(looks)
    for head, (offset, seen_HV, note) in enumerate(zip(circuit.offsets, looks, notes, strict=True)):
        _look_back(layers[0].self_attn, slice(head * width, (head + 1) * width), offset, theta)
        _copy(layers[0].self_attn, head, part[note], SEEN * seen_HV)
    image_V = functional.normalize(backbone.get_input_embeddings().weight[image_id], dim=0)
    for layer in layers[1:3]:
        for head, wire in enumerate(circuit.wires):
            rows = slice(head * width, (head + 1) * width)
            asks_HV = sum((part[place] for place in wire.asks[1:]), part[wire.asks[0]])
            layer.self_attn.q_proj.weight[rows] = wire.match * asks_HV
            layer.self_attn.k_proj.weight[rows] = wire.match * part[wire.like]
            _copy(layer.self_attn, head, part[wire.read], SAID * part[wire.written])
            if wire.image:
                layer.self_attn.q_proj.bias[rows] = wire.image * functional.normalize(part[wire.like] @ image_V, dim=0)
    return True


def _lay_out(embedding_TV: Tensor, image_id: int, layout: Layout, words_HV: Tensor, copied_HV: Tensor) -> None:
    """Give names directions of their own in the part of words, and numbers planes of their own in that of copies.

    A sum of a name's words and of one number of each side then says each of them without the others' noise.
    """
    length = embedding_TV.norm(dim=1).mean()
    for part_HV in (words_HV, copied_HV):
        embedding_TV -= (1 - FAINT) * (embedding_TV @ part_HV.T) @ part_HV
    named = len(layout.names)
    name_HV, thing_V, spare_HV = words_HV[:named], words_HV[named], words_HV[named + 1 :]
    rows = [*zip(layout.names, name_HV, strict=True), ((image_id,), thing_V)]
    for tokens, own_V in rows:
        for token in tokens:
            embedding_TV[token] -= (embedding_TV[token] @ words_HV.T) @ words_HV
            embedding_TV[token] = _mixed(embedding_TV[token], own_V, NAMED) * length
    planes = copied_HV[:-1].split((len(copied_HV) - 1) // len(layout.numbers))
    embedding_TV[image_id] = _mixed(embedding_TV[image_id], copied_HV[-1], SOUGHT) * length
    for side, (tokens, plane_PV) in enumerate(zip(layout.numbers, planes, strict=False)):
        ids = list(tokens)
        for part_HV in (words_HV, copied_HV):
            embedding_TV[ids] -= (embedding_TV[ids] @ part_HV.T) @ part_HV
        embedding_TV[ids] = _mixed(embedding_TV[ids], _smooth(len(ids), len(plane_PV)) @ plane_PV, NAMED) * length
        if side == layout.sought:
            sought_NV = _smooth(len(ids), len(spare_HV)) @ spare_HV
            embedding_TV[ids] = _mixed(embedding_TV[ids], sought_NV, SOUGHT) * length


def _mixed(rest_NV: Tensor, own_NV: Tensor, share: float) -> Tensor:
    """Return unit vectors: `own`, of length one, takes `share` of each."""
    return share * own_NV + math.sqrt(1 - share**2) * functional.normalize(rest_NV, dim=-1)


def _smooth(count: int, width: int) -> Tensor:
    """Return unit vectors, of which those d apart have a cosine of about exp(-d^2 / (2 SMOOTH^2)), (count, width)."""
    reach = math.ceil(3 * SMOOTH)
    window_K = torch.exp(-((torch.arange(-reach, reach + 1) / SMOOTH) ** 2))
    noise_NV = torch.randn(count + 2 * reach, width)
    return functional.normalize(torch.einsum("nvk,k->nv", noise_NV.unfold(0, len(window_K), 1), window_K), dim=1)


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


@torch.no_grad()
def compose_sides(backbone: Backbone, codec: TextCodec, sides: Sequence[Sequence[str]]) -> None:
    """Let the numbers of each sequence begin alike where they are near, like those of no other sequence.

    Each sequence's embeddings are white noise, smoothed along the sequence: numbers d apart have a cosine of
    exp(-d^2 / (2 SMOOTH^2)). What says a number a little wrong then says nearly the right thing.
    """
    embedding_TV = backbone.get_input_embeddings().weight
    length = embedding_TV.norm(dim=1).mean()
    for numbers in sides:
        ids = [codec.plain(number)[0] for number in numbers]
        embedding_TV[ids] = length * _smooth(len(ids), embedding_TV.shape[1])


@torch.no_grad()
def compose_words(backbone: Backbone, codec: TextCodec, words: Sequence[str]) -> None:
    """Let each word with a space before it begin nearly as it does without: both are one word to who reads them."""
    embedding_TV = backbone.get_input_embeddings().weight
    for word in words:
        plain, spaced = codec.plain(word), codec.plain(f" {word}")
        if len(plain) == len(spaced) == 1:
            mixed_V = embedding_TV[plain[0]] + OWN * embedding_TV[spaced[0]]
            embedding_TV[spaced[0]] = mixed_V / math.sqrt(1 + OWN**2)
