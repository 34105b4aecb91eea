# SPDX-License-Identifier: Apache-2.0
"""The kinds of toys and reference objects, as tables of primitives in millimetres. No simulator, no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from chatvla_sim.toy_placement.shapes import Core, Kind, Part, Triple, box, can, core, egg, scaled

__all__ = ["KINDS", "REFERENCE_KINDS", "TOY_KINDS"]

SIDEWAYS = (1.5707963, 0.0, 0.0)
FORWARD = (0.0, 1.5707963, 0.0)
DIAGONAL = (0.7853982, 0.0, 0.0)
BOW = (0.0, 0.0, 0.7853982)


def wheels(x: float, y: float, radius: float) -> tuple[Part, ...]:
    return tuple(can(radius, 3, (sx * x, sy * y, radius), "black", SIDEWAYS) for sx in (-1, 1) for sy in (-1, 1))


GRIP_Z_MM = 30.0
"""Height of every toy's grip: pads then begin 12 mm above the table, where a chunk that misses by 10 mm still passes
the check, and nothing about it differs between kinds that demonstrations show and kinds that they do not."""


def toy(name: str, size: Triple, grip: float, parts: tuple[Part, ...], cores: tuple[Core, ...]) -> Kind:
    return Kind(
        name=name,
        size=scaled(size),
        parts=parts,
        cores=cores,
        mass_kg=0.06,
        grip_m=grip / 1000,
        grip_z_m=GRIP_Z_MM / 1000,
    )


def thing(name: str, size: Triple, parts: tuple[Part, ...], cores: tuple[Core, ...], flat_top: bool) -> Kind:
    return Kind(name=name, size=scaled(size), parts=parts, cores=cores, mass_kg=0.8, flat_top=flat_top)


TOY_KINDS = (
    toy(
        "cube",
        (44, 44, 44),
        44,
        (
            box((22, 22, 22), (0, 0, 22)),
            box((14, 14, 22.6), (0, 0, 22), "white"),
            box((22.6, 14, 14), (0, 0, 22), "white"),
            box((14, 22.6, 14), (0, 0, 22), "white"),
        ),
        (core((22, 22, 22), (0, 0, 22)),),
    ),
    toy(
        "car",
        (78, 42, 46),
        38,
        (
            box((39, 19, 10), (0, 0, 18)),
            box((20, 17, 9), (-4, 0, 36), "glass"),
            box((18, 16, 2), (-4, 0, 45)),
            *wheels(24, 18, 10),
        ),
        (core((38, 19, 14), (0, 0, 14)), core((18, 16, 9), (-4, 0, 37))),
    ),
    toy(
        "duck",
        (78, 44, 62),
        40,
        (
            egg((34, 22, 20), (0, 0, 20)),
            egg((16, 16, 16), (20, 0, 46)),
            egg((10, 9, 4), (36, 0, 44), "orange"),
            egg((10, 9, 8), (-32, 0, 30)),
            egg((4, 3, 4), (30, 10, 52), "black"),
            egg((4, 3, 4), (30, -10, 52), "black"),
        ),
        (core((24, 20, 18), (0, 0, 18)), core((11, 10, 12), (20, 0, 46))),
    ),
    toy(
        "cup",
        (62, 50, 56),
        46,
        (
            can(25, 28, (0, 0, 28)),
            can(21, 1, (0, 0, 56), "shade"),
            box((3, 4, 15), (35, 0, 28)),
            box((8, 4, 3), (29, 0, 41)),
            box((8, 4, 3), (29, 0, 15)),
        ),
        (core((23, 23, 28), (0, 0, 28)),),
    ),
    toy(
        "brick",
        (66, 34, 30),
        34,
        (box((33, 17, 12), (0, 0, 12)), *(can(6, 3, (x, y, 27)) for x in (-22, 0, 22) for y in (-9, 9))),
        (core((33, 17, 12), (0, 0, 12)), core((27, 14, 3), (0, 0, 27))),
    ),
    toy(
        "bear",
        (56, 46, 78),
        42,
        (
            egg((23, 23, 25), (0, 0, 25)),
            egg((19, 19, 18), (3, 0, 58)),
            egg((5, 8, 8), (2, 15, 73)),
            egg((5, 8, 8), (2, -15, 73)),
            egg((8, 9, 7), (20, 0, 54), "cream"),
            egg((8, 14, 14), (17, 0, 25), "cream"),
            egg((3, 3, 3), (20, 7, 64), "black"),
            egg((3, 3, 3), (20, -7, 64), "black"),
            egg((10, 8, 8), (18, 15, 8)),
            egg((10, 8, 8), (18, -15, 8)),
        ),
        (core((18, 21, 25), (0, 0, 25)), core((13, 13, 14), (3, 0, 60))),
    ),
    toy(
        "boat",
        (84, 36, 72),
        36,
        (
            box((30, 18, 11), (-6, 0, 11)),
            box((12.7, 12.7, 11), (24, 0, 11), "main", BOW),
            box((26, 14, 2), (-6, 0, 23), "cream"),
            can(3, 24, (4, 0, 46), "brown"),
            box((17, 1.5, 17), (-12, 0, 50), "white"),
        ),
        (core((32, 18, 12), (-4, 0, 12)), core((3, 3, 24), (4, 0, 46))),
    ),
    toy(
        "house",
        (50, 44, 62),
        42,
        (
            box((24, 21, 19), (0, 0, 19)),
            box((25, 15, 15), (0, 0, 38), "brown", DIAGONAL),
            box((24.6, 6, 12), (0, 0, 12), "cream"),
            box((6, 21.6, 7), (0, 0, 22), "glass"),
        ),
        (core((24, 21, 20), (0, 0, 20)), core((20, 10, 8), (0, 0, 48))),
    ),
    toy(
        "rocket",
        (60, 36, 84),
        34,
        (
            can(18, 28, (0, 0, 34)),
            egg((18, 18, 22), (0, 0, 62), "white"),
            box((12, 2, 15), (18, 0, 15), "black"),
            box((12, 2, 15), (-18, 0, 15), "black"),
            can(12, 4, (0, 0, 4), "black"),
            egg((7, 7, 7), (14, 0, 44), "glass"),
            egg((7, 7, 7), (0, -14, 44), "glass"),
        ),
        (core((18, 17, 30), (0, 0, 30)), core((10, 10, 10), (0, 0, 70))),
    ),
    toy(
        "tree",
        (56, 56, 74),
        44,
        (can(9, 10, (0, 0, 10), "brown"), can(28, 9, (0, 0, 28)), can(21, 9, (0, 0, 46)), can(13, 10, (0, 0, 64))),
        (core((18, 18, 10), (0, 0, 10)), core((22, 22, 9), (0, 0, 28)), core((14, 14, 14), (0, 0, 52))),
    ),
    toy(
        "train",
        (80, 40, 62),
        36,
        (
            box((38, 18, 9), (0, 0, 17)),
            can(14, 20, (14, 0, 36), "main", FORWARD),
            box((14, 17, 16), (-22, 0, 40)),
            box((16, 19, 2.5), (-22, 0, 57), "black"),
            can(5, 8, (26, 0, 54), "black"),
            *wheels(24, 17, 10),
            *wheels(0, 17, 8),
        ),
        (core((38, 18, 13), (0, 0, 13)), core((32, 13, 12), (0, 0, 38))),
    ),
    toy(
        "mushroom",
        (58, 58, 56),
        44,
        (
            can(14, 16, (0, 0, 16), "cream"),
            egg((29, 29, 20), (0, 0, 36)),
            egg((7, 7, 4), (0, 0, 55), "white"),
            egg((6, 6, 5), (18, 8, 48), "white"),
            egg((6, 6, 5), (-12, 15, 48), "white"),
            egg((6, 6, 5), (4, -19, 48), "white"),
        ),
        (core((16, 16, 16), (0, 0, 16)), core((22, 22, 11), (0, 0, 38))),
    ),
)
"""What is picked and placed."""

REFERENCE_KINDS = (
    thing(
        "box",
        (108, 88, 64),
        (box((54, 44, 32), (0, 0, 32)), box((54.6, 9, 32.6), (0, 0, 32), "cream")),
        (core((54, 44, 32), (0, 0, 32)),),
        True,
    ),
    thing(
        "plate",
        (128, 128, 14),
        (can(64, 6, (0, 0, 6)), can(46, 1.2, (0, 0, 13), "white"), can(38, 1.6, (0, 0, 13))),
        (core((46, 46, 7), (0, 0, 7)), core((60, 22, 7), (0, 0, 7)), core((22, 60, 7), (0, 0, 7))),
        True,
    ),
    thing(
        "book",
        (120, 92, 30),
        (
            box((60, 46, 4), (0, 0, 4)),
            box((57, 43, 11), (0, 0, 15), "white"),
            box((60, 46, 4), (0, 0, 26)),
            box((3, 46, 15), (-58, 0, 15)),
            box((26, 20, 0.6), (0, 0, 30), "cream"),
        ),
        (core((60, 46, 15), (0, 0, 15)),),
        True,
    ),
    thing(
        "bottle",
        (56, 56, 116),
        (
            can(28, 38, (0, 0, 38)),
            egg((28, 28, 18), (0, 0, 76)),
            can(11, 12, (0, 0, 96)),
            can(12, 5, (0, 0, 111), "black"),
            can(28.6, 16, (0, 0, 36), "white"),
        ),
        (core((22, 22, 44), (0, 0, 44)), core((9, 9, 14), (0, 0, 102))),
        False,
    ),
    thing(
        "drum",
        (100, 100, 92),
        (
            can(50, 44, (0, 0, 45)),
            can(46, 1.2, (0, 0, 91), "white"),
            can(51, 4, (0, 0, 86), "black"),
            can(51, 4, (0, 0, 5), "black"),
        ),
        (core((38, 38, 46), (0, 0, 46)), core((48, 18, 46), (0, 0, 46)), core((18, 48, 46), (0, 0, 46))),
        True,
    ),
    thing(
        "bowl",
        (116, 116, 52),
        (can(30, 8, (0, 0, 8)), can(46, 9, (0, 0, 24)), can(58, 10, (0, 0, 42)), can(50, 1, (0, 0, 52), "black")),
        (core((38, 38, 26), (0, 0, 26)), core((54, 20, 10), (0, 0, 42)), core((20, 54, 10), (0, 0, 42))),
        False,
    ),
    thing(
        "stool",
        (104, 104, 66),
        (can(52, 7, (0, 0, 59)), *(can(6, 27, (x, y, 27), "brown") for x in (-30, 30) for y in (-30, 30))),
        (core((38, 38, 33), (0, 0, 33)), core((50, 18, 7), (0, 0, 59)), core((18, 50, 7), (0, 0, 59))),
        True,
    ),
    thing(
        "can",
        (72, 72, 88),
        (can(36, 42, (0, 0, 43)), can(36.8, 20, (0, 0, 44), "cream"), can(32, 1, (0, 0, 87), "steel")),
        (core((29, 29, 44), (0, 0, 44)),),
        True,
    ),
    thing(
        "pot",
        (80, 80, 112),
        (
            can(34, 24, (0, 0, 24)),
            can(39, 7, (0, 0, 48)),
            egg((36, 22, 26), (0, 0, 82), "leaf"),
            egg((22, 36, 26), (0, 0, 84), "leaf"),
            egg((14, 14, 26), (0, 0, 86), "leaf"),
        ),
        (core((28, 28, 28), (0, 0, 28)), core((20, 20, 26), (0, 0, 82))),
        False,
    ),
    thing(
        "case",
        (112, 60, 70),
        (
            box((56, 30, 35), (0, 0, 35)),
            box((4, 30.8, 35.6), (-30, 0, 35), "black"),
            box((4, 30.8, 35.6), (30, 0, 35), "black"),
            box((10, 32, 5), (0, 0, 48), "steel"),
        ),
        (core((56, 30, 35), (0, 0, 35)),),
        True,
    ),
)
"""What a toy is put beside, on or below."""

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in (*TOY_KINDS, *REFERENCE_KINDS)})
