# SPDX-License-Identifier: Apache-2.0
"""The first broken link of the chain from seeing to doing is the cause."""

import pytest

from chatvla_eval.causes import failure_cause
from chatvla_eval.tasks import ScoredReasoning

NOTHING = {"perceived": False, "computed": False, "chosen": False}


def scored(*, perceived=True, computed=True, chosen=True):
    return ScoredReasoning(measures={}, parts={}, answer="", perceived=perceived, computed=computed, chosen=chosen)


@pytest.mark.parametrize(
    ("text", "run", "cause"),
    [
        ({}, {"success": True}, ""),
        ({"chosen": False}, {"success": True}, ""),
        ({}, {"error": "POLICY_FAULT: not finite"}, "error:POLICY_FAULT: not finite"),
        ({}, {"refused": "jump"}, "refused:jump"),
        ({}, {"refused": "jump", "picked": "card_2"}, "following"),
        ({"perceived": False, "computed": False, "chosen": False}, {}, "perception"),
        ({"computed": False, "chosen": False}, {}, "arithmetic"),
        ({"chosen": False}, {}, "choice"),
        ({}, {"picked": "card_2"}, "following"),
        ({}, {"picked": "card_1"}, "execution"),
        ({}, {"picked": "card_1", "timed_out": True}, "execution"),
        ({}, {"timed_out": True}, "timeout"),
        ({}, {"timed_out": True, "approached": "card_2"}, "timeout"),
        ({}, {}, "execution"),
        ({}, {"approached": "card_1"}, "execution"),
        ({}, {"approached": "card_2"}, "following"),
        ({"chosen": False}, {"approached": "card_2"}, "choice"),
        ({"perceived": False}, {"picked": "card_2"}, "following"),
        (NOTHING, {"success": True}, ""),
        (NOTHING, {"written": False}, "no_text"),
        (NOTHING, {"written": False, "picked": "card_2"}, "no_text"),
        (NOTHING, {"written": False, "picked": "card_2", "timed_out": True}, "no_text"),
        (NOTHING, {"written": False, "timed_out": True}, "timeout"),
        (NOTHING, {"written": False, "refused": "jump"}, "refused:jump"),
        (NOTHING, {"written": False, "error": "POLICY_FAULT: nan"}, "error:POLICY_FAULT: nan"),
    ],
)
def test_cause(text, run, cause):
    given = {"success": False, "written": True, "picked": "", "approached": "", "target": "card_1", "timed_out": False}
    assert failure_cause(scored(**text), **given | run) == cause
