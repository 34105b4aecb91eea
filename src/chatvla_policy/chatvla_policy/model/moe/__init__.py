# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts in place of a language model's MLPs (ChatVLA-2, section 3.1)."""
