# SPDX-License-Identifier: Apache-2.0
"""Read operands, operator, answer, cards and choice out of a reasoning text."""

from chatvla_eval.reasoning_text.parser import CardChoice, ParsedReasoning, parse_reasoning

__all__ = ["CardChoice", "ParsedReasoning", "parse_reasoning"]
