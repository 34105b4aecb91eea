# SPDX-License-Identifier: Apache-2.0
"""Say what went wrong in one or two lines: the fact, then the remedy."""

from __future__ import annotations

__all__ = ["BrokenEnvironmentError", "BrokenNetworkError", "ChatvlaError", "UsageError"]


class ChatvlaError(Exception):
    """Something the user can act on; `str()` is the sentence to show."""

    exit_code = 1


class BrokenEnvironmentError(ChatvlaError):
    """This machine lacks something: a tool, a library, disk space, a usable Python."""

    exit_code = 3


class BrokenNetworkError(ChatvlaError):
    """The package index cannot be reached; trying again later continues where the set-up stopped."""

    exit_code = 4


class UsageError(ChatvlaError):
    """A verb, an argument or a value that does not exist."""

    exit_code = 2
