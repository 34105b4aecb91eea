# SPDX-License-Identifier: Apache-2.0
"""Keep the text that override_reasoning forces on a policy: until released, or for one instruction."""

# Generated messages carry no types that pyright knows:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Callable

from chatvla_msgs.srv import OverrideReasoning

__all__ = ["LONGEST_TEXT", "ForcedText"]

LONGEST_TEXT = 2000
"""Characters of an instruction or a forced text."""
Request = OverrideReasoning.Request


def _takes_all(text: str) -> None:
    """Accept any text."""


class ForcedText:
    """The text in force, if any. `check` raises ValueError for a text that this policy cannot follow."""

    def __init__(self, check: Callable[[str], None] = _takes_all) -> None:
        self.text: str | None = None
        """None: the policy thinks for itself."""
        self.check = check
        self._once = False

    def begin_with(self, text: str) -> None:
        """Put a text in force until it is released. Raises ValueError for one that the policy cannot follow."""
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"the forced text has {len(text)} characters, allowed are 1 to {LONGEST_TEXT}")
        self.check(text)
        self.text, self._once = text, False

    def end_instruction(self) -> None:
        """Drop a text that was given for one instruction."""
        if self._once:
            self.text, self._once = None, False

    def on_request(
        self, request: OverrideReasoning.Request, response: OverrideReasoning.Response
    ) -> OverrideReasoning.Response:
        """Serve override_reasoning."""
        text = request.text.strip()
        if request.scope == Request.RELEASE:
            self.text, self._once = None, False
            response.success, response.message = True, "the policy thinks for itself again"
        elif request.scope not in (Request.UNTIL_RELEASED, Request.ONE_INSTRUCTION):
            response.message = f"scope {request.scope} is none of 0 UNTIL_RELEASED, 1 ONE_INSTRUCTION, 2 RELEASE"
        elif not 1 <= len(text) <= LONGEST_TEXT:
            response.message = f"the text has {len(text)} characters, allowed are 1 to {LONGEST_TEXT}"
        else:
            try:
                self.check(text)
            except ValueError as error:
                response.message = str(error)
                return response
            self.text, self._once = text, request.scope == Request.ONE_INSTRUCTION
            response.success, response.message = True, f"in force: {text:.80}"
        return response
