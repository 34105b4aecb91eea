# SPDX-License-Identifier: Apache-2.0
"""Adapters with which VLMEvalKit and lmms-eval run our checkpoints. Each module imports its own framework."""
