# SPDX-License-Identifier: Apache-2.0
"""The ROS side of control: message conversions, the simulator's port and the driver node."""
