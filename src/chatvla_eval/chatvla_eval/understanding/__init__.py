# SPDX-License-Identifier: Apache-2.0
"""Score what a checkpoint answers to questions about images: does it stay a vision-language model?"""
