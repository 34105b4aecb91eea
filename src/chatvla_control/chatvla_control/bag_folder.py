# SPDX-License-Identifier: Apache-2.0
"""Look at a rosbag2 folder before a library opens it: a pipe or a device in place of a file would hang the reader.

Bags come from other machines. What a library raises on a damaged one is of any type; callers turn it into a sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

__all__ = ["BagFolderError", "check_bag_folder"]

METADATA = "metadata.yaml"
LARGEST_METADATA = 64 * 2**20


class BagFolderError(ValueError):
    """The folder cannot be opened as a bag; the message says why."""


def check_bag_folder(folder: Path) -> None:
    """Raise BagFolderError unless the metadata names plain files that lie in the folder."""
    path = folder / METADATA
    if not folder.is_dir() or not path.is_file():
        raise BagFolderError(f"{folder} has no {METADATA}; give the folder of a rosbag2 bag")
    if path.stat().st_size > LARGEST_METADATA:
        raise BagFolderError(f"{path} has {path.stat().st_size} bytes, at most {LARGEST_METADATA} are read")
    try:
        data: Any = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        names = [str(name) for name in data["rosbag2_bagfile_information"]["relative_file_paths"]]
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BagFolderError(f"{path} is no metadata of a bag: {type(error).__name__}: {error!s:.200}") from None
    for name in names:
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise BagFolderError(f"{path} names {name!r:.100}, which is no file in the bag's folder")
        if (folder / name).exists() and not (folder / name).is_file():
            raise BagFolderError(f"{folder / name} is no plain file; copy the bag again")
