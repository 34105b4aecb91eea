# SPDX-License-Identifier: Apache-2.0
"""Models of robot arms: their dimensions, as kinematic chains and as MuJoCo bodies."""
