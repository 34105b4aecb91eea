# SPDX-License-Identifier: Apache-2.0
"""The math-matching bench: a whiteboard, number cards and two ARX R5 arms (ChatVLA-2, math matching game)."""
