# SPDX-License-Identifier: Apache-2.0
"""The report in a real headless browser: nothing from outside, filter, both themes, no overflow on a phone."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_eval.plots.motion import motion_plot
from chatvla_eval.report import report_html, write_report
from chatvla_eval.results import RunInfo, write_results
from chatvla_eval.session import Watch
from chatvla_eval.tasks.example_scene import GOOD_TEXT, scene
from chatvla_eval.trace import THUMBNAILS, TrialTrace, read_trace
from chatvla_eval.trial_result import TrialResult

SPEC = robot_spec("arx_r5")
INFO = RunInfo(
    task="math_match",
    split="open_world",
    seed=7,
    trials=3,
    policy="tiny",
    privileged=False,
    simulation=True,
    commit="abc",
)
EVIL = "<script>document.title='broken'</script> On the board & table"


def trial(index, link, text=GOOD_TEXT):
    return TrialResult(
        index=index,
        seed=700_000 + index,
        instruction="Pick the card.",
        scene={"equation": "3 + 4", "right_answer": "7", "cards": [{"place": "left", "value": "7"}]},
        text=text,
        answer="7",
        texts=1,
        picked="7",
        measures={"ocr": 4, "math": 2},
        parts={"numbers": 1},
        success=not link,
        cause=link,
        seconds=6.5,
        subsets=(),
        link=link,
        chosen="7",
    )


def trace():
    """Return the trace of six seconds: a joint that turns, a chunk every half second a little ahead of it."""
    kept = TrialTrace()
    chunks = []
    for step in range(60):
        elapsed_s = 0.1 * step
        joints = np.array(SPEC.home) + 0.1 * np.sin(elapsed_s)
        if step % 5 == 0:
            rows = joints + np.linspace(0, 0.1, 50)[:, None]
            chunks.append(
                ActionChunk(
                    id=str(step),
                    actions=rows,
                    joint_names=SPEC.joint_names,
                    robot=SPEC.name,
                    mode=ActionMode.JOINT_POSITION,
                    stamp_s=100 + elapsed_s,
                    start_s=100 + elapsed_s,
                    step_period_s=0.02,
                    valid_until_s=200.0,
                    policy="tiny",
                )
            )
        watch = Watch(
            elapsed_s=elapsed_s,
            truth=scene(),
            texts=(GOOD_TEXT,),
            clock_s=100 + elapsed_s,
            joints=joints,
            chunks=tuple(chunks),
        )
        kept.add(watch)
        if kept.wants_frame(elapsed_s):
            kept.add_frame(elapsed_s, np.full((240, 320, 3), step, np.uint8))
    return kept


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_results(folder, INFO, [trial(0, ""), trial(1, "perception", EVIL), trial(2, "execution")])
    for index in (0, 1):
        trace().write(folder, index)
    return write_report(folder)


def test_trace_keeps_pictures_over_the_whole_trial_and_chunks_in_its_time(report):
    kept = read_trace(report.parent, 0)
    assert len(kept["frames"]) == THUMBNAILS
    assert kept["frames"][0]["time_s"] == 0
    assert kept["frames"][-1]["time_s"] > 5
    assert [chunk["start_s"] for chunk in kept["chunks"]] == pytest.approx([0.5 * k for k in range(12)])
    assert kept["joint_names"] == list(SPEC.joint_names)
    assert read_trace(report.parent, 2) is None


def test_motion_plot_shows_each_chunk_in_each_strip():
    plot = motion_plot(trace().to_dict())
    assert plot.count('stroke="var(--orange)"') == 1 + 6 * 12
    assert plot.count('stroke="var(--blue)"') == 1 + 6
    assert "NaN" not in plot
    assert motion_plot({"joint_names": [], "times_s": []}) == ""


def test_page_asks_for_nothing_outside_itself(report):
    page = report.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)[^"#]', page)
    assert "@import" not in page
    assert "url(" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_page_holds_every_trial_and_no_text_becomes_markup(report):
    page = report.read_text()
    assert page.count('<article class="trial"') == 3
    assert "&lt;script&gt;" in page
    assert "document.title=&#x27;broken&#x27;" in page
    assert "1/3 = 33%" in page
    assert "failed: perception" in page


def test_report_without_trials_is_still_a_page():
    empty = json.loads(json.dumps({"trials": [], "complete": False, "trials_asked": 3, "summary": {"causes": {}}}))
    base = {"task": "t", "split": "s", "policy": "p", "privileged": True, "simulation": True, "seed": 0, "commit": "c"}
    more = {"transport": "ros", "swap": True, "forced_reasoning": "x"}
    assert "INCOMPLETE: 0 of 3" in report_html(base | more | empty, {})


SHOWN = "return [...document.querySelectorAll('.trial')].filter(r=>!r.hidden).map(r=>r.id)"


@pytest.mark.slow
def test_filter_shows_the_failures_and_the_address_keeps_it(report, browser):
    browser.open(report)
    assert browser.run(SHOWN) == ["trial-0", "trial-1", "trial-2"]
    browser.run("document.querySelector('[data-show=failures]').click()")
    assert browser.run(SHOWN) == ["trial-1", "trial-2"]
    assert browser.run("return location.hash") == "#failures"
    browser.run("document.querySelector('[data-show=execution]').click()")
    assert browser.run(SHOWN) == ["trial-2"]
    browser.do("/refresh")
    assert browser.run(SHOWN) == ["trial-2"]


@pytest.mark.slow
def test_texts_of_a_policy_do_not_run_and_pictures_show(report, browser):
    browser.open(report)
    assert browser.run("return document.title").startswith("math_match")
    assert (
        browser.run("return [...document.images].every(i=>i.complete&&i.naturalWidth>0)&&document.images.length") == 16
    )
    assert browser.run("return document.querySelectorAll('#trial-1 blockquote script').length") == 0
    bad = [entry for entry in browser.log() if entry["level"] in ("SEVERE", "WARNING")]
    assert not bad


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False), (390, True)])
def test_page_fits_the_screen_and_text_stands_out_in_both_themes(report, browser, width, dark, tmp_path):
    browser.open(report, width=width, height=844, dark=dark)
    assert browser.run("return document.documentElement.scrollWidth<=innerWidth")
    browser.run("document.querySelectorAll('details').forEach(d=>d.open=true)")
    assert browser.run("return document.documentElement.scrollWidth<=innerWidth")
    for selector in ("body", ".soft", ".verdict.bad", ".verdict.good", ".tools button", "dd"):
        assert contrast(browser, selector) >= 4.5, selector
    name = f"report_{width}_{'dark' if dark else 'light'}.png"
    browser.picture(Path(os.environ.get("CHATVLA_SCREENSHOTS", tmp_path)) / name)


@pytest.mark.slow
def test_theme_button_changes_the_theme(report, browser):
    browser.open(report, dark=False)
    before = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.run("document.querySelector('.theme').click()")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != before


def contrast(browser, selector):
    """Return the contrast ratio of a text against the ground it stands on (WCAG 2.1, relative luminance)."""
    script = (
        "let e=document.querySelector(arguments[0]);const ink=getComputedStyle(e).color;"
        "while(e&&getComputedStyle(e).backgroundColor.endsWith(', 0)'))e=e.parentElement;"
        "return [ink,getComputedStyle(e||document.body).backgroundColor]"
    )
    ink, ground = browser.do("/execute/sync", script=script, args=[selector])

    def luminance(colour):
        shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)
