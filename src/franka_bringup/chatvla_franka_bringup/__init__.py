# SPDX-License-Identifier: Apache-2.0
"""The Franka's driver: ports to the simulator, to ros2_control and through MoveIt's collision check."""
