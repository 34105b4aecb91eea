# SPDX-License-Identifier: Apache-2.0
"""Robot limits, contracts, chunk check and chunk player. The core knows no ROS and no torch; `ros/` holds the rest."""
