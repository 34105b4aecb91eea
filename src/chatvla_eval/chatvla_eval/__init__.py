# SPDX-License-Identifier: Apache-2.0
"""Run evaluations and score them: tasks, reasoning parser, rollouts, statistics, results and bags."""
