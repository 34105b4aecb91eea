# SPDX-License-Identifier: Apache-2.0
"""Makers of hostile files, and the part of the campaign that opens them."""
