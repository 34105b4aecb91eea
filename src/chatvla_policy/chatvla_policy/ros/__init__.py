# SPDX-License-Identifier: Apache-2.0
"""The policy on ROS: a lifecycle node around chatvla_policy.runtime."""
