# SPDX-License-Identifier: Apache-2.0
"""Run evaluations, recording and replay through ROS 2. The only part of this package that imports rclpy."""
