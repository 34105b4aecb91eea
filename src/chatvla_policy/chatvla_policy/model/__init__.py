# SPDX-License-Identifier: Apache-2.0
"""The ChatVLA-2 model in PyTorch: backbone with a mixture of experts, decoding, and the action expert."""
