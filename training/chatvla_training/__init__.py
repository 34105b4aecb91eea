# SPDX-License-Identifier: Apache-2.0
"""Make demonstrations, read data sets and train ChatVLA-2. No ROS."""
