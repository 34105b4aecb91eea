# SPDX-License-Identifier: Apache-2.0
"""Write an evaluation as one HTML file that needs nothing else: summary, a row per trial, plots."""

from chatvla_eval.report.page import REPORT_NAME, report_html, write_report

__all__ = ["REPORT_NAME", "report_html", "write_report"]
