# SPDX-License-Identifier: Apache-2.0
"""The toy-placement bench: put a toy to the left, right, front, behind, on top or below of a reference object."""
