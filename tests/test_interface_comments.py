# SPDX-License-Identifier: Apache-2.0
"""Every field and constant of every interface says what it is: a number its unit, a list its order or shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

MSGS = Path(__file__).resolve().parents[1] / "src" / "chatvla_msgs"
FILES = sorted([*MSGS.glob("msg/*.msg"), *MSGS.glob("srv/*.srv"), *MSGS.glob("action/*.action")])
MEASURE = re.compile(
    r"\b(s|seconds?|Hz|m|rad|rad/s|pixels?|bits?|count|number of|ratio|share|shares|steps?|rows?|code|constant|tokens?"
    r"|layers?|experts?|index|identifier|seed|0 to \d|metres?|quaternion)\b",
    re.IGNORECASE,
)
ORDER = re.compile(r"\border|row|one per|each|layer|shape|rows?\b|may be empty|left|right|length", re.IGNORECASE)
NUMBER = re.compile(r"^(u?int\d+|float\d+|double|byte|char)\b")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One field or constant of an interface."""

    where: str
    type: str
    name: str
    comment: str
    constant: bool


def members(path: Path) -> list[Member]:
    """Return what `path` declares; the comment is the block of `#` lines right above, or that behind it."""
    found: list[Member] = []
    block: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text, _, behind = line.partition("#")
        if text.strip() in {"", "---"}:
            block = [*block, behind] if "#" in line else []
            continue
        kind, name = text.split()[:2]
        comment = " ".join([*block, behind]).strip()
        where = f"{path.relative_to(MSGS)}:{number} {name}"
        found.append(Member(where=where, type=kind, name=name, comment=comment, constant="=" in text))
        block = []
    return found


EVERYTHING = [member for path in FILES for member in members(path)]


def test_there_are_interfaces() -> None:
    names = {path.stem for path in FILES}
    assert names >= {"Reasoning", "BoundingBox", "ActionChunk", "RouterStats", "BenchState"}
    assert names >= {"OverrideReasoning", "Ask", "ResetBench", "FollowInstruction"}


@pytest.mark.parametrize("member", EVERYTHING, ids=lambda member: member.where)
def test_member_is_commented(member: Member) -> None:
    assert len(member.comment.split()) >= 3, f"{member.where} has no comment that says what it is"


@pytest.mark.parametrize(
    "member", [m for m in EVERYTHING if NUMBER.match(m.type) and not m.constant], ids=lambda member: member.where
)
def test_number_says_its_unit(member: Member) -> None:
    assert MEASURE.search(member.comment), f"{member.where}: '{member.comment}' names no unit"


@pytest.mark.parametrize("member", [m for m in EVERYTHING if "[" in m.type], ids=lambda member: member.where)
def test_list_says_its_order(member: Member) -> None:
    assert ORDER.search(member.comment), f"{member.where}: '{member.comment}' says neither shape nor order"


def test_a_bare_field_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "MSGS", tmp_path)
    path = tmp_path / "Bare.msg"
    path.write_text("# Something else.\n\nfloat64 width\n")
    (member,) = members(path)
    assert member.comment == ""
