# SPDX-License-Identifier: Apache-2.0
"""What reads ROS messages: recorded bags. Needs the message packages, not a running ROS."""
