# SPDX-License-Identifier: Apache-2.0
"""Name what is wrong with a message."""

from __future__ import annotations

__all__ = ["ConversionError"]


class ConversionError(ValueError):
    """A message or contract does not hold together; `field` names the part, the text says fact, limit and remedy."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
