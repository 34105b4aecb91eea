# SPDX-License-Identifier: Apache-2.0
"""Write a Markdown page as one HTML file, too: its plots inside, light and dark, on a phone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from chatvla_eval.report.frame import THEME_BUTTON, framed, write_aside

__all__ = ["html_of_markdown", "write_pages"]

_STYLE_OF_ITS_OWN = re.compile(r"<style>.*?</style>", re.DOTALL)


def write_pages(folder: Path, stem: str, page: str, *, more: str = "") -> Path:
    """Write STEM.md and STEM.html into `folder` and return the HTML's path; plots lie in `folder` already.

    `more` is HTML that the second has at its end. Raises OSError for a plot that is missing.
    """
    write_aside(folder / f"{stem}.md", page)
    return write_aside(folder / f"{stem}.html", html_of_markdown(page, folder, more=more))


def html_of_markdown(page: str, folder: Path, *, more: str = "") -> str:
    """Return a Markdown page as HTML, with the SVG files that it shows, which lie in `folder`, inside.

    HTML within the page is shown as text; pictures of any other kind, or from elsewhere, are shown as their names.
    """
    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML

    def picture(name: str) -> str:
        if Path(name).name != name or not name.endswith(".svg"):
            return escape(name)
        # A plot of its own brings colours for both themes; here the page's hold, which its button changes.
        drawn = _STYLE_OF_ITS_OWN.sub("", (folder / name).read_text(encoding="utf-8"), count=1)
        return f'<span class="plot scroll">{drawn}</span>'

    class Renderer(RendererHTML):
        """HTML with plots inside, and tables that scroll in a narrow window."""

        def table_open(self, *_: object) -> str:
            return '<div class="scroll"><table>'

        def table_close(self, *_: object) -> str:
            return "</table></div>"

        def image(self, tokens: Sequence[Any], index: int, *_: object) -> str:  # type: ignore[override]
            return picture(str(tokens[index].attrGet("src")))

    reader = MarkdownIt("commonmark", {"html": False}, renderer_cls=Renderer).enable("table")
    title = next((line[2:] for line in page.splitlines() if line.startswith("# ")), "")
    return framed(title, f'<div class="tools">{THEME_BUTTON}</div>{reader.render(page)}{more}')
