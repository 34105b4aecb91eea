# SPDX-License-Identifier: Apache-2.0
"""Which texts contradict themselves. The wordings of the demonstrations are held against it in training/test."""

from __future__ import annotations

import pytest

from chatvla_policy.processing.contradiction import contradicts_itself

READ = "The whiteboard shows 3+4. 3+4=7. There are: far left: 7, left: 12, and right: 5. "


@pytest.mark.parametrize(
    "text",
    [
        READ + "I should pick 7 (far left).",
        READ + "I should pick 7 on the far left.",
        READ + "I should pick the far left card.",
        "3+4 is 7. There is 7 on the left, 12 on the middle and 5 on the right. I will pick 7 (left).",
        "I should pick the left card.",
        "There are: left: 7, and right: 5. I take it.",
        READ,
        "",
        "Put the red car (left) behind the blue box at 12, 34.",
    ],
)
def test_what_agrees_or_says_too_little_is_not_doubted(text: str) -> None:
    assert not contradicts_itself(text)


@pytest.mark.parametrize(
    "text",
    [
        READ + "I should pick 7 (right).",
        READ + "I should pick 12 (left).",
        READ + "I should pick 8 (far right).",
        READ + "I should pick the right card.",
        "The whiteboard shows 3x7. 3x7=21. The cards are left: 0, and right: 7. I should pick 21 (left).",
        "There is 5 on the left and 9 on the right. I will pick 4 (left).",
    ],
)
def test_what_chooses_a_card_that_it_did_not_read_is_doubted(text: str) -> None:
    assert contradicts_itself(text)


def test_any_text_is_looked_at_in_little_time() -> None:
    for text in ("a b: 1 " * 200_000, "9 (" * 500_000, ". " * 500_000):
        assert not contradicts_itself(text)
