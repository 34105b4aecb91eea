# SPDX-License-Identifier: Apache-2.0
"""Put the router's page, figures and plots beside the tables, with what they rest on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from chatvla_tables.gather import run_facts
from chatvla_tables.page_parts import facts_lines, tried_lines
from chatvla_tables.settings import PlanSettings, evals_folder
from chatvla_tables.tables import ROUTER

__all__ = ["write_router"]


def write_router(folder: Path, settings: PlanSettings) -> Path | None:
    """Write router_SIZE.json, .md and plots into `folder`; return the page's path, None when nothing was counted."""
    source, stem = evals_folder(settings) / ROUTER, f"router_{settings.size}"
    if not (source / "router.json").is_file():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    found = json.loads((source / "router.json").read_text(encoding="utf-8"))
    facts = run_facts([ROUTER], settings, [source], [found["commit"]]) | {"training_seed": 0}
    (folder / f"{stem}.json").write_text(json.dumps(found | facts, indent=1) + "\n", encoding="utf-8")
    for plot in sorted(source.glob("router_*.svg")):
        shutil.copyfile(plot, folder / plot.name.replace("router_", f"{stem}_", 1))
    text = (source / "router.md").read_text(encoding="utf-8").replace("](router_", f"]({stem}_")
    title, _, rest = text.partition("\n")
    lines = [
        f"{title}, size {settings.size}",
        "",
        *facts_lines(facts),
        "Training seed 0. Before fine-tuning: the start with its experts made, the router untrained, at step 0.",
        rest,
        *tried_lines(folder / f"{stem}_notes.md"),
    ]
    page = folder / f"{stem}.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    return page
