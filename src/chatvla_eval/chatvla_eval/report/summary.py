# SPDX-License-Identifier: Apache-2.0
"""Write the report's head: rates with intervals, where the chain broke, what forcing the right reasoning changes."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from chatvla_eval.plots.svg import number

__all__ = ["against_section", "forced_section", "interval_bar", "links_section", "summary_section"]

EXPLAINED = {
    "perception": "something was read wrong or not said, and the text chose wrongly",
    "arithmetic": "all was read right, the answer was wrong",
    "choice": "the answer was right, the text chose another object",
    "following": "the text was right, the arm went for another object",
    "execution": "the text was right and followed, the motion failed",
    "no_text": "the policy wrote no text: what it saw and chose is not known",
    "run": "the run itself broke",
}


def summary_section(results: Mapping[str, Any]) -> str:
    """Return the table of rates, the subsets below the whole."""
    summary = results["summary"]
    rows = _rates(summary, "")
    for mark, rates in summary.items():
        if isinstance(rates, dict) and isinstance(rates.get("success"), dict):
            rows += _rates(rates, mark)
    agreement = summary.get("agreement", {"n": 0})
    if agreement["n"]:
        rows.append(_rate("took what the text chose", agreement))
    head = "<tr><th>measure</th><th>value</th><th>95% interval</th><th></th></tr>"
    return f'<h2>Summary</h2><div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def links_section(results: Mapping[str, Any]) -> str:
    """Return where the chain broke; nothing when no trial failed."""
    links = results["summary"].get("links", {})
    total = sum(links.values())
    if not total:
        return ""
    rows = "".join(
        f"<tr><td>{escape(link)}</td><td class=num>{count} of {total}</td>"
        f'<td class="soft">{escape(EXPLAINED.get(link, ""))}</td></tr>'
        for link, count in links.items()
    )
    return f"<h2>Why trials failed</h2><table>{rows}</table>"


def forced_section(results: Mapping[str, Any]) -> str:
    """Return what the same trials did under the right reasoning; nothing when they were not run."""
    forced = results.get("forced_correct")
    if forced is None:
        return ""
    test = forced["against_own_text"]
    rows = [_rate("success", forced["success"])]
    rows += [_rate(f"cured: {link}", {**count, "low": None, "high": None}) for link, count in forced["cured"].items()]
    words = (
        f"Only with its own text {test['only_first']}, only with the right text {test['only_second']}, "
        f"both {test['both']}, neither {test['neither']}: p = {test['p']:.3g} (McNemar, exact)."
    )
    head = "<tr><th>measure</th><th>value</th><th>95% interval</th><th></th></tr>"
    return f"<h2>Same trials, right reasoning forced</h2><table>{head}{''.join(rows)}</table><p>{escape(words)}</p>"


def against_section(results: Mapping[str, Any]) -> str:
    """Return the paired comparison with an earlier run; nothing when none was given."""
    found = results.get("against")
    if found is None:
        return ""
    test = found["success"]
    n, before, after = found["n"], test["both"] + test["only_first"], test["both"] + test["only_second"]
    rows = [
        _rate("before", {"k": before, "n": n, "low": None, "high": None}),
        _rate("after", {"k": after, "n": n, "low": None, "high": None}),
    ]
    words = (
        f"Before: {found['run']}, policy {found['policy']}{' (privileged)' if found.get('privileged') else ''}"
        f"{', cards swapped' if found['swap'] else ''}. "
        f"Success only before {test['only_first']}, only after {test['only_second']}: "
        f"p = {test['p']:.3g} (McNemar, exact)."
    )
    return f"<h2>Against an earlier run on the same trials</h2><table>{''.join(rows)}</table><p>{escape(words)}</p>"


def interval_bar(value: float, low: float | None, high: float | None) -> str:
    """Return a bar of a share in 0..1 with its interval."""
    whisker = ""
    if low is not None and high is not None:
        ends = (200 * low, 200 * high)
        whisker = (
            f'<path d="M{number(ends[0])} 9H{number(ends[1])}M{number(ends[0])} 5v8M{number(ends[1])} 5v8" '
            'stroke="var(--ink)" stroke-width="1.5" vector-effect="non-scaling-stroke"/>'
        )
    return (
        '<svg viewBox="0 0 200 18" preserveAspectRatio="none" role="img" aria-hidden="true">'
        '<rect width="200" height="18" fill="var(--card)"/>'
        f'<rect y="3" width="{number(max(200 * value, 0.5))}" height="12" fill="var(--blue)" fill-opacity=".75"/>'
        f"{whisker}</svg>"
    )


def _rates(rates: Mapping[str, Any], mark: str) -> list[str]:
    """Return the rows of one set of trials; `mark` is the subset's name, "" for all."""
    rows = []
    for name, rate in rates.items():
        label = f"{name} ({mark.replace('_', ' ')})" if mark else name
        if name == "success":
            rows.append(_rate(label, rate))
        elif isinstance(rate, dict) and rate.get("mean") is not None:
            most = rate["of"]
            low, high = rate["low"], rate["high"]
            rows.append(
                _row(
                    label,
                    f"{rate['mean']:.2f} of {most}",
                    f"{low:.2f} – {high:.2f}",
                    rate["mean"] / most,
                    low / most,
                    high / most,
                )
            )
    return rows


def _rate(label: str, rate: Mapping[str, Any]) -> str:
    share = rate["k"] / rate["n"] if rate["n"] else 0.0
    low, high = rate.get("low"), rate.get("high")
    interval = f"{100 * low:.0f}% – {100 * high:.0f}%" if low is not None and high is not None else ""
    return _row(label, f"{rate['k']}/{rate['n']} = {100 * share:.0f}%", interval, share, low, high)


def _row(label: str, value: str, interval: str, share: float, low: float | None, high: float | None) -> str:
    return (
        f"<tr><td>{escape(label)}</td><td class=num>{escape(value)}</td><td class=num>{escape(interval)}</td>"
        f"<td class=bar>{interval_bar(share, low, high)}</td></tr>"
    )
