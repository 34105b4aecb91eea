# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one folder with weights, config, processing, statistics and robots; saved at once, loaded exactly."""

from chatvla_policy.checkpoint.errors import CheckpointError, GoldenMismatchError
from chatvla_policy.checkpoint.folder import Checkpoint, load_checkpoint, read_config, save_checkpoint
from chatvla_policy.checkpoint.golden import Golden, check_golden
from chatvla_policy.checkpoint.setup import RobotSetup

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Golden",
    "GoldenMismatchError",
    "RobotSetup",
    "check_golden",
    "load_checkpoint",
    "read_config",
    "save_checkpoint",
]
