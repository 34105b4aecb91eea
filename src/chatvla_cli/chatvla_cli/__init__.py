# SPDX-License-Identifier: Apache-2.0
"""Make the environment, run the verbs, start launch graphs. The set-up part needs nothing but the standard library."""
