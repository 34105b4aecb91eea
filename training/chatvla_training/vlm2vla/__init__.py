# SPDX-License-Identifier: Apache-2.0
"""VLM2VLA: robot episodes relabelled as language, and a VLM with low-rank adapters trained on them."""
