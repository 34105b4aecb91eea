# SPDX-License-Identifier: Apache-2.0
"""The parts of the campaign that attack running ROS nodes."""
