# SPDX-License-Identifier: Apache-2.0
"""Pages of evaluations without trials: one HTML file with its plots inside, and no text of a policy becomes markup."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from chatvla_eval.plots.bars import Bar, bars
from chatvla_eval.report.from_markdown import html_of_markdown, write_pages
from chatvla_eval.understanding.answers_table import answers_html

EVIL = "<img src=http://example.org/x.png onerror=alert(1)> | ![far](http://example.org/y.svg) [a](javascript:alert(1))"
PAGE = f"""# Understanding: tiny

| file | metric | n | policy |
|---|---|---|---|
| chart.tsv | relaxed | 3 | 66.7 [0.0, 100.0] |

Text of a model: {EVIL}

![Success](success.svg)
"""
RESULTS = {
    "base": "start",
    "sets": [
        {
            "file": "chart.tsv",
            "policy_answers": [{"question": "How many?", "references": ["3", "three"], "answer": EVIL, "score": 0.0}],
            "base_answers": [{"question": "How many?", "references": ["3", "three"], "answer": "3", "score": 1.0}],
        }
    ],
}


@pytest.fixture
def page(tmp_path) -> Path:
    items = [Bar(label="full", value=0.8, low=0.7, high=0.9, note="8/10", mark=0.83)]
    drawn = bars(items, title="Success", mark="paper, real robot", standalone=True)
    (tmp_path / "success.svg").write_text(drawn)
    return write_pages(tmp_path, "understanding", PAGE, more=answers_html(RESULTS))


def test_both_pages_are_written_and_the_plot_is_inside(page):
    assert page.with_suffix(".md").read_text() == PAGE
    found = page.read_text()
    assert "<title>Understanding: tiny</title>" in found
    assert found.count("<svg") == 1
    assert "<td>66.7 [0.0, 100.0]</td>" in found
    assert "3 / three" in found


def test_diamonds_are_explained_where_there_are_any():
    item = Bar(label="full", value=0.8)
    assert "paper, real robot" not in bars([item], title="Success", mark="paper, real robot")
    assert "paper, real robot" in bars([item, replace(item, mark=0.83)], title="Success", mark="paper, real robot")


def test_nothing_is_asked_from_outside_and_no_text_becomes_markup(page):
    found = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)[^"#]', found)
    assert "<img" not in found
    assert found.count("&lt;img src=") == 2


def test_a_missing_plot_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.svg"):
        html_of_markdown("# Page\n\n![Plot](gone.svg)\n", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_page_fits_the_screen_and_the_button_turns_its_plot_too(page, browser, width, dark, tmp_path):
    browser.open(page, width=width, height=844, dark=dark)
    assert browser.run("return document.title") == "Understanding: tiny"
    browser.run("document.querySelectorAll('details').forEach(d=>d.open=true)")
    assert browser.run("return document.documentElement.scrollWidth<=innerWidth")
    ink = "return getComputedStyle(document.querySelector('svg text')).fill"
    before = browser.run(ink)
    name = f"understanding_{width}_{'dark' if dark else 'light'}.png"
    browser.picture(Path(os.environ.get("CHATVLA_SCREENSHOTS", tmp_path)) / name)
    browser.run("document.querySelector('.theme').click()")
    assert browser.run(ink) != before
    assert not [entry for entry in browser.log() if entry["level"] in ("SEVERE", "WARNING")]
