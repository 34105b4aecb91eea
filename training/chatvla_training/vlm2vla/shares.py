# SPDX-License-Identifier: Apache-2.0
"""Mix the kinds of questions in exact shares: an episode asks for its subtasks hardly ever, for directions often.

The order stays a function of the seed and the place alone (data/mixture.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from chatvla_training.data.mixture import Group
from chatvla_training.data.samples import SampleSource
from chatvla_training.recipe import RecipeError
from chatvla_training.vlm2vla.language_data import KINDS, LanguageSource

__all__ = ["language_groups", "shares_from"]


def shares_from(text: str) -> dict[str, int]:
    """Return the share by kind of a text such as "subtasks:3,plan:2". Raises RecipeError, listing the kinds."""
    found: dict[str, int] = {}
    for part in (item.strip() for item in text.split(",") if item.strip()):
        kind, _, share = part.partition(":")
        if kind not in KINDS or not share.isdecimal():
            raise RecipeError(f"question_shares: {part!r} is no KIND:NUMBER; kinds are: {', '.join(KINDS)}")
        found[kind] = int(share)
    return found


def language_groups(
    sources: Sequence[LanguageSource], chat: Sequence[SampleSource], *, ratio: tuple[int, int], shares: str
) -> list[Group]:
    """Return the groups of a mixture: image-text data to questions as `ratio` says, kinds of questions as `shares`.

    A kind that the variant does not ask, or that is not named, has no share; without any shares the questions come as
    often as the data has them. Raises RecipeError when no question is left.
    """
    chat_share, robot_share = ratio
    wanted = shares_from(shares)
    if not wanted:
        return [
            Group(name="image_text", share=chat_share, sources=tuple(chat)),
            Group(name="robot", share=robot_share, sources=tuple(sources)),
        ]
    kinds: dict[str, tuple[LanguageSource, ...]] = {}
    for kind in KINDS:
        parts = tuple(part for part in (source.only(kind) for source in sources) if len(part))
        if parts and wanted.get(kind):
            kinds[kind] = parts
    if not kinds:
        raise RecipeError(f"question_shares {shares!r} leaves no question of the data; kinds are: {', '.join(KINDS)}")
    total = sum(wanted[kind] for kind in kinds)
    groups = [Group(name=kind, share=robot_share * wanted[kind], sources=parts) for kind, parts in kinds.items()]
    return [Group(name="image_text", share=chat_share * total, sources=tuple(chat)), *groups]
