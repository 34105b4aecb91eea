# SPDX-License-Identifier: Apache-2.0
"""The ARX R5 bimanual robot's driver: its CAN port and the node's executable."""
