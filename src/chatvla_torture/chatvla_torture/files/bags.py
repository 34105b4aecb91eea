# SPDX-License-Identifier: Apache-2.0
"""Make a small sound bag of the ARX R5 bench, and spoil it."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from chatvla_control.robot_spec import robot_spec

__all__ = ["HOSTILE", "make_bag"]

Spoil = Callable[[Path, np.random.Generator], None]
_META = "metadata.yaml"


def make_bag(folder: Path, *, seconds: float = 2.0, plugin: str = "mcap", poison: str = "") -> None:
    """Write joint states, commands, camera images and an instruction under /chatvla.

    `poison` spoils the values, not the file: "nan", "names", "images", "stamps" or "text".
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    spec = robot_spec("arx_r5")
    time, header = types["builtin_interfaces/msg/Time"], types["std_msgs/msg/Header"]
    joint, image, string = (
        types[name] for name in ("sensor_msgs/msg/JointState", "sensor_msgs/msg/Image", "std_msgs/msg/String")
    )
    pixels = np.asarray(Image.effect_noise((32, 24), 40).convert("RGB")).reshape(-1)
    with Writer(folder, version=9, storage_plugin=StoragePlugin[plugin.upper()]) as writer:
        connections = {
            name: writer.add_connection(f"/chatvla/{name}", kind, typestore=store)
            for name, kind in (
                ("joint_states", joint.__msgtype__),
                ("joint_command", joint.__msgtype__),
                ("camera/top/image_raw", image.__msgtype__),
                ("instruction", string.__msgtype__),
                ("reasoning", string.__msgtype__),
            )
        }

        def write(name: str, at_ns: int, message: object, kind: str) -> None:
            writer.write(connections[name], at_ns, store.serialize_cdr(message, kind))

        text = "\x1b[2J\u202e" + "x" * 100_000 if poison == "text" else "Pick the card with the correct answer."
        write("instruction", 10**9, string(data=text), string.__msgtype__)
        for tick in range(int(seconds * 50)):
            at_ns = 10**9 + tick * 20_000_000
            stamp = time(sec=at_ns // 10**9, nanosec=at_ns % 10**9)
            if poison == "stamps":
                stamp = time(sec=-(2**31) if tick % 3 else 2**31 - 1, nanosec=2**32 - 1)
            positions = np.array(spec.home) + 0.01 * np.sin(tick / 10)
            if poison == "nan" and tick % 5 == 0:
                positions[3] = np.nan
            names = ["joint"] * 3 if poison == "names" else list(spec.joint_names)
            frame = header(stamp=stamp, frame_id="base")
            empty = np.zeros(0)
            for name in ("joint_states", "joint_command"):
                write(
                    name,
                    at_ns,
                    joint(header=frame, name=names, position=positions, velocity=empty, effort=empty),
                    joint.__msgtype__,
                )
            if tick % 5 == 0:
                size = (2**31, 2**31, 7) if poison == "images" else (24, 32, 96)
                write(
                    "camera/top/image_raw",
                    at_ns,
                    image(
                        header=frame,
                        height=size[0],
                        width=size[1],
                        encoding="rgb8",
                        is_bigendian=0,
                        step=size[2],
                        data=pixels,
                    ),
                    image.__msgtype__,
                )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".mcap", ".db3"))


def _flip(count: int) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        path = _files(folder)[0]
        data = bytearray(path.read_bytes())
        for _ in range(count):
            data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
        path.write_bytes(data)

    return spoil


def _truncate(folder: Path, random: np.random.Generator) -> None:
    path = _files(folder)[0]
    data = path.read_bytes()
    path.write_bytes(data[: int(random.integers(0, len(data)))])


def _tail(folder: Path, random: np.random.Generator) -> None:
    """Damage the index at the end, where readers begin."""
    path = _files(folder)[0]
    data = bytearray(path.read_bytes())
    for _ in range(8):
        data[-int(random.integers(1, 400))] = int(random.integers(256))
    path.write_bytes(data)


def _lengths(folder: Path, random: np.random.Generator) -> None:
    """Put a length of 2^62 somewhere a length may be."""
    path = _files(folder)[0]
    data = bytearray(path.read_bytes())
    place = int(random.integers(8, len(data) - 8))
    data[place : place + 8] = struct.pack("<Q", 2**62)
    path.write_bytes(data)


def _garbage(folder: Path, random: np.random.Generator) -> None:
    _files(folder)[0].write_bytes(random.bytes(5000))


def _meta(old: str, new: str) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        path = folder / _META
        text = path.read_text()
        path.write_text(text.replace(old, new))

    return spoil


def _whole_meta(text: str) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        (folder / _META).write_text(text)

    return spoil


def _path(name: str) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        path = folder / _META
        path.write_text(path.read_text().replace(_files(folder)[0].name, name))

    return spoil


def _link(folder: Path, random: np.random.Generator) -> None:
    path = _files(folder)[0]
    path.unlink()
    path.symlink_to("/etc/passwd")


def _pipe(folder: Path, random: np.random.Generator) -> None:
    path = _files(folder)[0]
    path.unlink()
    os.mkfifo(path)


def _missing(folder: Path, random: np.random.Generator) -> None:
    _files(folder)[0].unlink()


def _poison(kind: str) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        for path in list(folder.iterdir()):
            path.unlink()
        folder.rmdir()
        make_bag(folder, poison=kind)

    return spoil


def _sqlite(change: Spoil | None) -> Spoil:
    def spoil(folder: Path, random: np.random.Generator) -> None:
        for path in list(folder.iterdir()):
            path.unlink()
        folder.rmdir()
        make_bag(folder, plugin="sqlite3")
        if change is not None:
            change(folder, random)

    return spoil


def _yaml_bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 9)]
    return "\n".join([*lines, "rosbag2_bagfile_information: *a8"])


def _picture_bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


HOSTILE: dict[str, Spoil] = {
    **{f"bits flipped {number}": _flip(1 + number * number) for number in range(8)},
    **{f"cut off {number}": _truncate for number in range(4)},
    **{f"index damaged {number}": _tail for number in range(6)},
    **{f"length forged {number}": _lengths for number in range(6)},
    "garbage": _garbage,
    "storage missing": _missing,
    "storage is a link": _link,
    "storage is a pipe": _pipe,
    "metadata empty": _whole_meta(""),
    "metadata no YAML": _whole_meta("rosbag2_bagfile_information: {"),
    "metadata runs code": _whole_meta(
        "rosbag2_bagfile_information: !!python/object/apply:os.system ['touch exploded']"
    ),
    "metadata bomb": _whole_meta(_yaml_bomb()),
    "metadata deep": _whole_meta("[" * 5000),
    "metadata of version 999": _meta("version: 9", "version: 999"),
    "metadata of another plugin": _meta("storage_identifier: mcap", "storage_identifier: ../../evil"),
    "metadata without files": _meta("relative_file_paths", "no_file_paths"),
    "metadata counts 10^18": _meta("message_count: ", "message_count: 1000000000000000"),
    "metadata negative": _meta("nanoseconds: ", "nanoseconds: -"),
    "metadata of another type": _meta("sensor_msgs/msg/JointState", "evil_msgs/msg/Joint"),
    # Importing it would open a browser.
    "metadata type names a module": _meta("sensor_msgs/msg/JointState", "antigravity/msg/Joint"),
    "metadata type names a class": _meta("std_msgs/msg/String", "subprocess/Popen"),
    "path up": _path("../../../../etc/passwd"),
    "path absolute": _path("/etc/passwd"),
    "path of a device": _path("/dev/zero"),
    "values NaN": _poison("nan"),
    "values of wrong names": _poison("names"),
    "images of 2^62 bytes": _poison("images"),
    "stamps out of range": _poison("stamps"),
    "text huge": _poison("text"),
    "sqlite sound": _sqlite(None),
    "sqlite flipped": _sqlite(_flip(20)),
    "sqlite cut off": _sqlite(_truncate),
    "sqlite garbage": _sqlite(_garbage),
}
"""Makers by name: each changes the bag's folder in place. Reading must refuse in a sentence, or count what is bad."""
