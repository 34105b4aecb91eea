# SPDX-License-Identifier: Apache-2.0
"""Make the CMake files of the ROS 2 wheels name this machine's Python instead of the one they were built with."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["patch_cmake", "patched"]


def patch_cmake(share: Path, *, python_include: Path, numpy_include: Path) -> int:
    """Patch every CMake file under `share` in place; return how many changed. A second call changes none."""
    changed = 0
    for path in share.rglob("*.cmake"):
        before = path.read_text(encoding="utf-8", errors="surrogateescape")
        after = patched(before, python_include=python_include, numpy_include=numpy_include)
        if after != before:
            path.write_text(after, encoding="utf-8", errors="surrogateescape")
            changed += 1
    return changed


def patched(text: str, *, python_include: Path, numpy_include: Path) -> str:
    """Return CMake `text` with the build machine's paths replaced.

    Two libraries that only the build machine had, and that nothing of ours links, are left out: tinyxml2 and lttng-ust.
    """
    built = r"/opt/python/cp3\d+-cp3\d+"
    text = re.sub(rf"{built}/lib/python3\.\d+/site-packages/numpy/_core/include", str(numpy_include), text)
    text = re.sub(rf"{built}/include/python3\.\d+", str(python_include), text)
    text = text.replace("/usr/lib64/libtinyxml2.so;", "")
    return text.replace('"lttng-ust;', '"')
