# SPDX-License-Identifier: Apache-2.0
"""The paper's tables as experiments: rows are recipe differences, trained and evaluated on the same data and seeds."""
