# SPDX-License-Identifier: Apache-2.0
"""Run a policy against time: inputs, two clocks, seams. No ROS, and no clock but the one passed in."""
