# SPDX-License-Identifier: Apache-2.0
"""The frame of every HTML page: style and script inside, nothing from outside."""

from __future__ import annotations

from html import escape
from pathlib import Path

from chatvla_eval.report.assets import STYLE, THEME_SCRIPT

__all__ = ["THEME_BUTTON", "framed", "write_aside"]

THEME_BUTTON = '<button type="button" class="theme">Light / dark</button>'


def framed(title: str, body: str, *, script: str = "") -> str:
    """Return a whole page; `body` is HTML that holds THEME_BUTTON, `title` plain text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>'
        f"<body><main>{body}</main><script>{script}{THEME_SCRIPT}</script></body></html>\n"
    )


def write_aside(path: Path, content: str) -> Path:
    """Write a file beside and rename it, so that a reader never meets half of it; return its path."""
    aside = path.with_suffix(".tmp")
    aside.write_text(content, encoding="utf-8")
    return aside.replace(path)
