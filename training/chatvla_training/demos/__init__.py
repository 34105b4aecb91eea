# SPDX-License-Identifier: Apache-2.0
"""Demonstrations of a bench's task by its scripted expert, with disturbances that it must recover from."""
