# SPDX-License-Identifier: Apache-2.0
"""Read from /diagnostics whether the driver of a robot holds on a fault or refuses chunks."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from chatvla_control.ros.diagnostics import is_from

__all__ = ["DriverWatch"]


class DriverWatch:
    """What the driver of `robot` last said."""

    def __init__(self, robot: str, *, namespace: str) -> None:
        """Only nodes in `namespace` ("/" for the root) are listened to: another bench may run in another one."""
        self._robot = robot
        self._namespace = namespace
        self.fault = ""
        """Sentence of a latched fault; empty when none."""
        self._counts: tuple[int, int] | None = None
        self._refusal = ""
        self._refused_since_s: float | None = None

    def on_diagnostics(self, msg: DiagnosticArray, now_s: float) -> None:
        """Take one report, heard at `now_s`."""
        for status in msg.status:
            if status.hardware_id != self._robot or not is_from(status, self._namespace):
                continue
            self.fault = status.message if status.level >= DiagnosticStatus.ERROR else ""
            values = {item.key: item.value for item in status.values}
            if not values.get("accepted", "").isdigit():
                continue
            accepted = int(values["accepted"])
            refused = sum(int(value) for key, value in values.items() if key.startswith("refused.") and value.isdigit())
            before, self._counts = self._counts, (accepted, refused)
            if before is None or accepted > before[0]:
                self._refused_since_s = None
            elif refused > before[1]:
                self._refusal = values.get("last_refusal", "")
                self._refused_since_s = now_s if self._refused_since_s is None else self._refused_since_s

    def begin(self) -> None:
        """Forget refusals: a new instruction begins."""
        self._refused_since_s = None

    def refusal(self, now_s: float, *, patience_s: float) -> str:
        """Return the last refusal when every chunk was refused for `patience_s`, else ""."""
        if self._refused_since_s is None:
            return ""
        self._refused_since_s = min(self._refused_since_s, now_s)  # The clock may be set back.
        return self._refusal if now_s - self._refused_since_s >= patience_s else ""
