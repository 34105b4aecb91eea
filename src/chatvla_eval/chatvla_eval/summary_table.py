# SPDX-License-Identifier: Apache-2.0
"""Print a results.json as a plain table: rates and means with their 95% intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatvla_control.scene import SEEDS_PER_RUN
from chatvla_eval.demonstrations import DEMONSTRATION_NOTE

__all__ = ["policy_label", "seeds_label", "summary_table", "swap_label", "trial_line"]


def policy_label(results: Mapping[str, Any]) -> str:
    """Return the policy's name with its system, marked "(privileged)" when it sees the scene's truth."""
    name, system = str(results["policy"]), str(results.get("system", ""))
    label = f"{name} [{system}]" if system not in ("", name) else name
    return f"{label} (privileged)" if results["privileged"] else label


def seeds_label(results: Mapping[str, Any]) -> str:
    """Return the run's seed; where bags were scored, those of all runs in them."""
    of_trials = [trial["seed"] // SEEDS_PER_RUN for trial in results["trials"] if results["transport"] == "bag"]
    seeds = dict.fromkeys([results["seed"], *of_trials])
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def swap_label(results: Mapping[str, Any]) -> str:
    """Return that cards were swapped, and in how many trials where these differ; empty where they were not."""
    swapped = [trial.get("swap", results["swap"]) for trial in results["trials"]]
    some = f" in {sum(swapped)} of {len(swapped)} trials" if len(set(swapped)) > 1 else ""
    return f"cards swapped against the same seeds{some}" if results["swap"] else ""


def summary_table(results: Mapping[str, Any]) -> str:
    """Return the table of a results.json, one line per rate; the subsets follow, indented."""
    where = "simulation" if results["simulation"] else "real robot"
    lines = [f"{results['task']} · {results['split']} · {policy_label(results)} · {where} · {seeds_label(results)}"]
    if results.get("demonstration_scenes"):
        lines.append(DEMONSTRATION_NOTE)
    if swapped := swap_label(results):
        lines.append(swapped)
    if results["force_correct"]:
        lines.append("the right reasoning is forced")
    if results["forced_reasoning"]:
        lines.append(f"forced reasoning: {results['forced_reasoning']}")
    if "delay_s" in results:
        lines.append("an inference takes {:g} s, with a new text {:g} s".format(*results["delay_s"]))
    summary = results["summary"]
    lines += _rates(summary, indent="  ")
    for mark, rates in summary.items():
        if isinstance(rates, dict) and isinstance(rates.get("success"), dict):
            lines += [f"  {mark}", *_rates(rates, indent="    ")]
    if summary["causes"]:
        lines.append("  failures  " + ", ".join(f"{cause} {count}" for cause, count in summary["causes"].items()))
        lines.append("  broken at " + ", ".join(f"{link} {count}" for link, count in summary["links"].items()))
    if summary["agreement"]["n"]:
        lines.append(f"  took what the text chose: {summary['agreement']['k']}/{summary['agreement']['n']}")
    if counts := summary.get("counts"):
        lines.append("  the policy counted  " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    if "against" in results:
        lines += _against(results["against"])
    if "forced_correct" in results:
        lines += _forced(results["forced_correct"])
    if not results["complete"]:
        lines.append(f"  INCOMPLETE: {len(results['trials'])} of {results['trials_asked']} trials")
    return "\n".join(lines)


def _against(found: Mapping[str, Any]) -> list[str]:
    test = found["success"]
    before, after = test["both"] + test["only_first"], test["both"] + test["only_second"]
    return [
        f"  against {found['run']}: {before}/{found['n']} before, {after}/{found['n']} after; "
        f"only before {test['only_first']}, only after {test['only_second']}, p = {test['p']:.3g} (McNemar)"
    ]


def _forced(forced: Mapping[str, Any]) -> list[str]:
    rate, test = forced["success"], forced["against_own_text"]
    cured = ", ".join(f"{link} {count['k']}/{count['n']}" for link, count in forced["cured"].items())
    share = 100 * rate["k"] / rate["n"] if rate["n"] else 0.0
    return [
        f"  right reasoning forced: {rate['k']}/{rate['n']} = {share:.0f}%"
        f" [{100 * rate['low']:.0f}%, {100 * rate['high']:.0f}%], against its own text p = {test['p']:.3g} (McNemar)",
        *([f"  cured by it: {cured}"] if cured else []),
    ]


def _rates(rates: Mapping[str, Any], *, indent: str) -> list[str]:
    lines: list[str] = []
    for name, rate in rates.items():
        if name == "success":
            share = f"{100 * rate['k'] / rate['n']:.0f}%" if rate["n"] else "-"
            value = f"{rate['k']}/{rate['n']} = {share}"
            lines.append(f"{indent}{name:<8}  {value:<14} [{100 * rate['low']:.0f}%, {100 * rate['high']:.0f}%]")
        elif isinstance(rate, dict) and rate.get("mean") is not None:
            value = f"{rate['mean']:.2f} of {rate['of']}"
            lines.append(f"{indent}{name:<8}  {value:<14} [{rate['low']:.2f}, {rate['high']:.2f}]")
    return lines


def trial_line(trial: Mapping[str, Any], *, number: int, count: int, measures: Mapping[str, int]) -> str:
    """Return one line on a trial: what was asked, what was answered and picked, scores, verdict."""
    scores = " ".join(f"{name} {trial[name]}/{most}" for name, most in measures.items())
    asked = trial.get("equation") or trial["instruction"]
    verdict = "success" if trial["success"] else f"FAILED ({trial['cause']})"
    claimed = f"answer {trial['answer'] or '-'}, picked {trial['picked'] or 'nothing'}"
    return f"trial {number}/{count}: {asked} | {claimed} | {scores} | {verdict}, {trial['seconds']:.1f} s"
