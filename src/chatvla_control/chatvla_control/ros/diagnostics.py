# SPDX-License-Identifier: Apache-2.0
"""Tell one's own bench's reports on /diagnostics from another's: the topic is everybody's, the names are nodes'."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus

__all__ = ["is_from"]


def is_from(status: DiagnosticStatus, namespace: str) -> bool:
    """Return whether a node in `namespace` itself ("/" for the root) sent `status`."""
    return str(status.name).rpartition("/")[0] == namespace.rstrip("/")
