# SPDX-License-Identifier: Apache-2.0
"""VLM2VLA's parts: actions, plans and subtasks as text, the model that writes them, and the way from text to motion.

Source: "Actions as Language: Fine-tuning VLMs into VLAs without Catastrophic Forgetting".
"""
