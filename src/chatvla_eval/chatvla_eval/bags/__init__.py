# SPDX-License-Identifier: Apache-2.0
"""Write and read rosbag2 folders from raw message bytes. No rclpy."""
