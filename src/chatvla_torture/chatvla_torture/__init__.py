# SPDX-License-Identifier: Apache-2.0
"""A campaign of faults against the whole suite: it tries to break what docs/safety.md promises."""
