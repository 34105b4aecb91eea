# SPDX-License-Identifier: Apache-2.0
"""`./chatvla torture [minutes]`: run the campaign; exit code 0 when every promise held, 1 at the first that broke."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from chatvla_control.argument_types import count, filled_path, natural, positive
from chatvla_eval.arguments import ArgumentParser, one_of
from chatvla_torture.campaign import TWENTY, Campaign, NoCaseError
from chatvla_torture.parts import PARTS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; return its exit code."""
    parser = _parser()
    options = parser.parse_strictly(sys.argv[1:] if argv is None else argv)
    if options.json is not None:
        parser.require_writable("--json", options.json)
    names = options.only or [part.name for part in PARTS.values() if part.share > 0.0]
    seed = int(time.time()) if options.seed is None else options.seed
    size = "full" if options.full else f"{options.minutes:g} minutes"
    print(f"seed {seed}, {size}: {', '.join(names)}", flush=True)
    started_s = time.monotonic()
    campaign = Campaign(
        parts=[PARTS[name] for name in names],
        seed=seed,
        minutes=options.minutes,
        jobs=options.jobs,
        only_case=options.case,
        full=options.full,
        journal=options.journal,
    )
    try:
        outcome = campaign.run()
    except NoCaseError as error:
        parser.error(f"argument --case: {error}")
    if options.json is not None:
        options.json.write_text(json.dumps(outcome.to_dict(), indent=2) + "\n", encoding="utf-8")
    seconds = time.monotonic() - started_s
    if outcome.broken is None:
        held = sum(promise.held > 0 for promise in outcome.promises)
        rest = f", {len(outcome.promises) - held} not tried" if held < len(outcome.promises) else ""
        stopped = "; stopped before its end" if outcome.interrupted else ""
        print(f"{held} promises held{rest}; seed {seed}, {seconds:.0f} s{stopped}")
        return 130 if outcome.interrupted else 0
    broken = outcome.broken
    print(f"broken: {broken.promise.part}.{broken.promise.name}: {broken.why}")
    again = f"./chatvla torture {options.minutes:g} --seed {seed} --only {broken.promise.part}"
    print(f"repeat it: {broken.case.repeat() if broken.case else again + (' --full' if options.full else '')}")
    return 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="chatvla torture",
        description="Try to make the suite exceed a limit, lose data, hang, crash, leak or run foreign code. Parts: "
        + "; ".join(f"{part.name}: {part.summary}" for part in PARTS.values()),
    )
    parser.add_argument(
        "minutes", type=positive, nargs="?", default=TWENTY, help="how much is tried (default: %(default)g)"
    )
    parser.add_argument("--seed", type=int, help="seed of the campaign (default: the time)")
    parser.add_argument(
        "--only", type=one_of("part", PARTS), nargs="+", metavar="PART", help="run these parts and no others"
    )
    parser.add_argument("--case", type=natural, metavar="N", help="try only case N of the parts given by --only")
    parser.add_argument(
        "--jobs", type=count, default=os.cpu_count() or 1, help="processes for what needs no clock (default: all cores)"
    )
    parser.add_argument(
        "--full", action="store_true", help="as many tries as docs/safety.md names, however long they take"
    )
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="blocks of chunks that FILE says were tried are not tried again"
    )
    parser.add_argument("--json", type=filled_path, metavar="FILE", help="write promises, counts and figures into FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
