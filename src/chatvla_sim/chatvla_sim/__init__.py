# SPDX-License-Identifier: Apache-2.0
"""Simulated benches with cameras, splits, scene truth and a scripted expert."""
