# SPDX-License-Identifier: Apache-2.0
"""Counterfactual replay: the same frame with another reasoning, and where the chunk then heads."""
