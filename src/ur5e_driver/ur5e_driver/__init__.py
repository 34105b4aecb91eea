# SPDX-License-Identifier: Apache-2.0
"""The UR5e's driver: its port and the node's executable; the worked example of docs/add_a_robot.md."""
