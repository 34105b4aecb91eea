# SPDX-License-Identifier: Apache-2.0
"""The ARX R5's own driver node with a controller that checks itself at every tick (see audit.py)."""

from __future__ import annotations

import sys

from arx_r5_driver.driver_node import make_port
from chatvla_control.ros.driver_node import run_driver
from chatvla_torture.audit import AuditedController

__all__ = ["main"]


def main() -> int:
    """Run the driver; return the exit code."""
    return run_driver(make_port, controller=AuditedController)


if __name__ == "__main__":
    sys.exit(main())
