# SPDX-License-Identifier: Apache-2.0
"""What stands between a robot's data and the model, alike in training and inference: prompts, images, boxes, scales."""
