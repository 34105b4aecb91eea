# SPDX-License-Identifier: Apache-2.0
"""Make a picture of a bench for a page: a view from the side, and beside it what the policy's camera sees.

python -m chatvla_sim.picture math_match --out docs/images/math_match.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chatvla_sim.bench import Bench
from chatvla_sim.benches import make_bench
from chatvla_sim.closed_loop import ClosedLoop
from chatvla_sim.expert import make_expert
from chatvla_sim.rendering import SceneRenderer

__all__ = ["main"]

SIDE_SIZE = (960, 600)
CHUNK_TICKS = 10


@dataclass(frozen=True, kw_only=True)
class Side:
    """Where the side view is taken from: point looked at [m], distance [m], angles [deg]."""

    at: tuple[float, float, float]
    distance_m: float
    azimuth_deg: float
    elevation_deg: float


SIDES: Mapping[str, Side] = {
    "math_match": Side(at=(0.22, 0.0, 0.11), distance_m=1.0, azimuth_deg=24.0, elevation_deg=-36.0),
    "toy_placement": Side(at=(0.36, 0.0, 0.22), distance_m=1.35, azimuth_deg=128.0, elevation_deg=-24.0),
}


class Drawn(Protocol):
    """A bench whose MuJoCo model can be looked at."""

    model: mujoco.MjModel
    data: mujoco.MjData


def side_view(bench: Bench) -> NDArray[np.uint8]:
    """Return the side view, shape (600, 960, 3), smooth and with sharp shadows."""
    scene, side = cast(Drawn, bench), SIDES[bench.name]
    model = scene.model
    model.vis.quality.shadowsize, model.vis.quality.offsamples = 4096, 8
    camera = mujoco.MjvCamera()
    camera.lookat[:] = side.at
    camera.distance, camera.azimuth, camera.elevation = side.distance_m, side.azimuth_deg, side.elevation_deg
    renderer = SceneRenderer(model, width=SIDE_SIZE[0], height=SIDE_SIZE[1])
    image = renderer.draw(scene.data, camera).copy()
    renderer.close()
    return image


def main(args: Sequence[str] | None = None) -> int:
    """Write the picture; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chatvla_sim.picture", description=__doc__)
    parser.add_argument("task", nargs="?", choices=sorted(SIDES), default="math_match", help="bench to draw")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--split", default="in_domain", help="split of the scene")
    parser.add_argument("--seed", type=int, default=4, help="seed of the scene")
    parser.add_argument("--time", type=float, default=3.2, help="seconds into the expert's trial")
    options = parser.parse_args(args)
    bench = make_bench(options.task)
    bench.reset(split=options.split, seed=options.seed)
    bench.step(0.2)
    policy_view = bench.render(bench.views[0]).copy()
    bench.close_renderer()
    loop = ClosedLoop(bench)
    expert = make_expert(bench.name, bench.spec, bench.truth)
    while bench.time_s < options.time:
        loop.accept(expert.infer(loop.observe("", ())).chunk)
        for _ in range(CHUNK_TICKS):
            loop.tick()
    side = Image.fromarray(side_view(bench))
    small = Image.fromarray(policy_view).resize((480, 360), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (SIDE_SIZE[0] + 20 + small.width, SIDE_SIZE[1]), "white")
    page.paste(side, (0, 0))
    page.paste(small, (SIDE_SIZE[0] + 20, (SIDE_SIZE[1] - small.height) // 2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    page.save(options.out, optimize=True)
    bench.close()
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
