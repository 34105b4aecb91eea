# SPDX-License-Identifier: Apache-2.0
"""Policies that look, reason and act: the model, its processing and its checkpoints. No ROS outside `ros/`."""
