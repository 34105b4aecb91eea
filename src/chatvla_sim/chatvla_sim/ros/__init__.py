# SPDX-License-Identifier: Apache-2.0
"""The nodes of the simulated benches: the only part of this package that imports rclpy."""
