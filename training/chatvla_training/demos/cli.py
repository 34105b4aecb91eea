# SPDX-License-Identifier: Apache-2.0
"""Record demonstrations: `./chatvla demos TASK --episodes N --out DIR`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from chatvla_control.argument_types import count, filled_path, natural, positive, share
from chatvla_control.scene import SEEDS_PER_RUN
from chatvla_sim.bench import BenchError
from chatvla_sim.benches import bench_names
from chatvla_training.demos.disturbance import DisturbanceSettings
from chatvla_training.demos.endpoint import EndpointError
from chatvla_training.demos.episode import DemoSettings

__all__ = ["main"]

EVALUATED_SEEDS = (100, 400)
"""Seeds of runs that no demonstration may show: the default of evaluations, and that of the tables."""
LIMITS_S = {"toy_sorting": 70.0}
"""Longest episode of tasks that take longer than others."""


def main(arguments: Sequence[str]) -> int:
    """Record a data set of demonstrations; return the exit code."""
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    options = _parser().parse_args(arguments)
    from chatvla_policy.checkpoint import CheckpointError
    from chatvla_policy.systems import checkpoint_folder
    from chatvla_training.demos.collect import SEED_STRIDE, CollectError, collect

    if (scored := options.seed * SEED_STRIDE // SEEDS_PER_RUN) in EVALUATED_SEEDS:
        print(
            f"demos: seed {options.seed} draws the scenes of `./chatvla eval --seed {scored}`, on which policies are "
            "scored; give another seed",
            file=sys.stderr,
        )
        return 2
    settings = DemoSettings(
        task=options.task,
        frame_hz=options.frame_hz,
        views=tuple(view.strip() for view in options.views.split(",") if view.strip()),
        image_codec=options.image_codec,
        disturbance=DisturbanceSettings(share=options.noise),
        limit_s=options.limit_s or LIMITS_S.get(options.task, DemoSettings().limit_s),
        paraphrase_url=options.paraphrase_url,
        paraphrase_model=options.paraphrase_model,
        driver=options.driver,
    )
    try:
        if options.driver:
            checkpoint_folder(options.driver)
        counts = collect(
            options.out.absolute(), episodes=options.episodes, seed=options.seed, jobs=options.jobs, settings=settings
        )
    except (BenchError, CheckpointError, CollectError, EndpointError, OSError) as error:
        print(f"demos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demos: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(
        f"{options.out}: {options.episodes} episodes ({counts['recorded']} recorded now, {counts['kept']} from before; "
        f"{counts['failed']} trials failed and were replaced)"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./chatvla demos", description="Record demonstrations by the scripted expert."
    )
    parser.add_argument("task", choices=bench_names())
    parser.add_argument("--episodes", type=count, default=600, help="episodes to record (default 600)")
    parser.add_argument("--out", type=filled_path, required=True, help="folder of the data set; must not exist")
    parser.add_argument("--seed", type=natural, default=0, help="which trials are recorded (default 0)")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=count, default=cores, help=f"processes (default {cores}: all cores)")
    parser.add_argument("--frame-hz", type=positive, default=10.0, help="camera frames stored per second (default 10)")
    parser.add_argument("--views", default="", help="cameras with commas, of the bench's (default: its own choice)")
    parser.add_argument(
        "--image-codec", choices=("jpeg", "png"), default="jpeg", help="jpeg (quality 90) or png (exact)"
    )
    parser.add_argument("--limit-s", type=positive, help="longest episode, simulated seconds (default: the task's)")
    parser.add_argument("--noise", type=share, default=0.6, help="share of episodes with pushes, 0 to 1 (default 0.6)")
    parser.add_argument(
        "--driver", default="", help="checkpoint that drives first; the expert takes over after 0.3 to 7 s (DAgger)"
    )
    parser.add_argument("--paraphrase-url", default="", help="OpenAI-compatible endpoint, such as http://host:8000/v1")
    parser.add_argument("--paraphrase-model", default="", help="model to ask there")
    return parser
