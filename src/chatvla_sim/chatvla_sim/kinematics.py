# SPDX-License-Identifier: Apache-2.0
"""The kinematics of chatvla_control, under the name the benches use."""

from __future__ import annotations

from chatvla_control.kinematics import Chain, IkError, Link, axis_rotation, pose_matrix, rotation_vector, rotation_xyz

__all__ = ["Chain", "IkError", "Link", "axis_rotation", "pose_matrix", "rotation_vector", "rotation_xyz"]
