# SPDX-License-Identifier: Apache-2.0
"""Make a small animated GIF for a page from the film of a trial.

python -m chatvla_eval.film_gif runs/film/trial_000.mp4 docs/images/tiny.gif
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from chatvla_eval.film import FILM_HZ

__all__ = ["main", "write_small_gif"]


def write_small_gif(film: Path, out: Path, *, width: int = 400, rate_hz: float = 4.0, colours: int = 64) -> Path:
    """Write the film (MP4 or GIF, FILM_HZ) at `width` pixels and about `rate_hz`, and return its path.

    The last picture stays for two seconds. Raises OSError when the film cannot be read.
    """
    import imageio.v2 as imageio
    from PIL import Image

    step = max(1, round(FILM_HZ / rate_hz))
    with imageio.get_reader(film) as reader:
        every = [Image.fromarray(frame) for frame in reader]  # type: ignore[arg-type]
    frames = every[::-step][::-1]
    height = round(frames[0].height * width / frames[0].width)
    sample = Image.new("RGB", (3 * frames[0].width, frames[0].height))
    for place, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        sample.paste(frame, (place * frames[0].width, 0))
    palette = sample.quantize(colours)
    small = [
        frame.convert("RGB")
        .resize((width, height), Image.Resampling.LANCZOS)
        .quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    lasts_ms = [round(1000 * step / FILM_HZ)] * (len(small) - 1) + [2000]
    aside = out.with_name(f".{out.name}")
    small[0].save(aside, format="GIF", save_all=True, append_images=small[1:], duration=lasts_ms, loop=0, optimize=True)
    return aside.replace(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the GIF; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chatvla_eval.film_gif", description=__doc__)
    parser.add_argument("film", type=Path, help="trial_000.mp4 or .gif of an evaluation")
    parser.add_argument("out", type=Path, help="GIF to write")
    parser.add_argument("--width", type=int, default=400, help="pixels")
    parser.add_argument("--rate-hz", type=float, default=4.0, help="pictures a second")
    options = parser.parse_args(arguments)
    try:
        path = write_small_gif(options.film, options.out, width=options.width, rate_hz=options.rate_hz)
    except OSError as error:
        print(f"film_gif: {options.film} cannot be read: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
