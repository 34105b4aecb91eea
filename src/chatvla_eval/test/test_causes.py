# SPDX-License-Identifier: Apache-2.0
"""The first broken link of the chain from seeing to doing is the cause."""

import pytest

from chatvla_eval.causes import failure_cause
from chatvla_eval.tasks import ScoredReasoning


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
        ({}, {}, "execution"),
        ({"perceived": False}, {"picked": "card_2"}, "following"),
    ],
)
def test_cause(text, run, cause):
    given = {"success": False, "picked": "", "target": "card_1", "timed_out": False} | run
    assert failure_cause(scored(**text), **given) == cause
