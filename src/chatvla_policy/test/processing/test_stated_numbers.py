# SPDX-License-Identifier: Apache-2.0
"""Which numbers of a text are taken as values, and in which order."""

import numpy as np
import pytest

from chatvla_policy.processing.stated_numbers import MOST_NUMBERS, stated_numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("The toy stands there.", []),
        ("<|box_start|>(462,324),(516,428)<|box_end|>. From 516 428.", [0.462, 0.324, 0.516, 0.428, 0.516, 0.428]),
        ("0 and 7 and 1000 and 1001", [0.0, 0.007, 1.0, 1.0]),
        ("a serial number of 123456789 digits is none", []),
    ],
)
def test_numbers_stand_in_their_order_at_the_end(text: str, expected: list[float]) -> None:
    found = stated_numbers(text)
    assert found.shape == (MOST_NUMBERS,)
    assert found.dtype == np.float32
    assert np.isnan(found[: MOST_NUMBERS - len(expected)]).all()
    np.testing.assert_allclose(found[MOST_NUMBERS - len(expected) :], expected, atol=1e-6)


def test_of_many_numbers_the_last_are_kept() -> None:
    found = stated_numbers(" ".join(str(number) for number in range(100)))
    np.testing.assert_allclose(found * 1000, range(100 - MOST_NUMBERS, 100), atol=1e-3)
