# SPDX-License-Identifier: Apache-2.0
"""Draw plots as SVG text, with no library: lines, bars with intervals, heat maps, for light and dark themes."""
