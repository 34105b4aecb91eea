# SPDX-License-Identifier: Apache-2.0
"""Make a film of one trial: the camera's view with instruction, reasoning and verdict written beneath.

MP4 where imageio's ffmpeg is installed, else an animated GIF.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chatvla_eval.trial_result import TrialResult

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FILM_HZ", "TrialFilm"]

FILM_HZ = 10.0
_SCALE = 2
_PANEL_HEIGHT = 176  # With 2 x 240 rows of image: a multiple of 16, as video coders want.
_MARGIN = 12
_LAST_FRAME_S = 2.0
_MOST_FRAMES = 1200
_INK = (235, 235, 235)
_GREY = (150, 155, 165)
_GREEN = (120, 220, 130)
_RED = (255, 130, 110)
_PANEL = (24, 26, 32)
_MARK = re.compile(r"<\|[a-z_]{1,24}\|>")


class TrialFilm:
    """Frames of one trial, drawn when it is written."""

    def __init__(self) -> None:
        self._frames: list[tuple[float, NDArray[np.uint8], str]] = []

    def add(self, elapsed_s: float, image: NDArray[np.uint8], text: str) -> None:
        """Keep one frame, image (H, W, 3) RGB, with the reasoning of that time; drop it when the last is too close."""
        due = not self._frames or elapsed_s - self._frames[-1][0] >= 0.95 / FILM_HZ
        if due and len(self._frames) < _MOST_FRAMES:
            self._frames.append((elapsed_s, image.copy(), text))

    def write(self, folder: Path, stem: str, result: TrialResult, policy: str) -> Path | None:
        """Write the film to `folder` and return its path; None when no frame was kept.

        Pictures of another size than most, which a second sender's may have, are left out.
        """
        if not self._frames:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        (size, _), *_ = Counter(image.shape for _, image, _ in self._frames).most_common(1)
        frames = [frame for frame in self._frames if frame[1].shape == size]
        pictures = [draw_frame(image, text, elapsed_s, result, policy) for elapsed_s, image, text in frames]
        elapsed_s, image, text = frames[-1]
        last = draw_frame(image, text, elapsed_s, result, policy, verdict=True)
        pictures += [last] * round(_LAST_FRAME_S * FILM_HZ)
        return _write_mp4(folder / f"{stem}.mp4", pictures) or _write_gif(folder / f"{stem}.gif", pictures)


def draw_frame(
    image: NDArray[np.uint8], text: str, elapsed_s: float, result: TrialResult, policy: str, *, verdict: bool = False
) -> Image.Image:
    """Return one frame of the film; with `verdict`, scores and result are written too."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = image.shape[:2]
    canvas = Image.new("RGB", (width * _SCALE, height * _SCALE + _PANEL_HEIGHT), _PANEL)
    canvas.paste(Image.fromarray(image).resize((width * _SCALE, height * _SCALE), Image.Resampling.BICUBIC))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=17)
    y = height * _SCALE + 8
    head = f"{policy}   trial {result.index}   seed {result.seed}   {elapsed_s:5.1f} s"
    for line, colour in [(head, _GREY), (result.instruction, _GREY)]:
        draw.text((_MARGIN, y), line, fill=colour, font=font)
        y += 23
    for line in _wrap(text or "(no reasoning yet)", font, canvas.width - 2 * _MARGIN)[:4]:
        draw.text((_MARGIN, y), line, fill=_INK, font=font)
        y += 23
    if verdict:
        scores = "   ".join(f"{name} {points}" for name, points in result.measures.items())
        words = "success" if result.success else f"failed: {result.cause}"
        line = f"{words}   answer {result.answer or '-'}   picked {result.picked or 'nothing'}   {scores}"
        draw.text((_MARGIN, canvas.height - 28), line, fill=_GREEN if result.success else _RED, font=font)
    return canvas


def _wrap(text: str, font: object, width: int) -> list[str]:
    """Return `text` without marks, in lines of at most `width` pixels; a word that is longer is cut."""
    lines = [""]
    for word in re.sub(r" (?=[.,])", "", _MARK.sub(" ", text[:1000])).split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:  # type: ignore[attr-defined]
            lines[-1] = longer
        else:
            lines.append(word[:60])
    return lines


def _write_mp4(path: Path, pictures: Sequence[Image.Image]) -> Path | None:
    """Write an MP4 and return its path; None when imageio or its ffmpeg is not installed."""
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None
    aside = path.with_name(f".{path.name}")
    frames = [np.asarray(picture) for picture in pictures]
    imageio.mimwrite(aside, frames, format="FFMPEG", fps=FILM_HZ, codec="libx264", quality=7, macro_block_size=16)  # type: ignore[arg-type]
    return aside.replace(path)


def _write_gif(path: Path, pictures: Sequence[Image.Image]) -> Path:
    """Write an animated GIF and return its path."""
    frames = [picture.quantize(128) for picture in pictures]
    aside = path.with_name(f".{path.name}")
    frames[0].save(aside, format="GIF", save_all=True, append_images=frames[1:], duration=round(1000 / FILM_HZ), loop=0)
    return aside.replace(path)
