# SPDX-License-Identifier: Apache-2.0
"""What stands between a robot's data and the model: prompts, tokens, images, boxes, statistics. Used alike by training and inference."""
