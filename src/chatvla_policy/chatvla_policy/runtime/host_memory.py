# SPDX-License-Identifier: Apache-2.0
"""Let the C library keep the memory that tensors free, instead of giving it back to the kernel each time.

glibc maps every large block anew and unmaps it when freed; the kernel then clears each page again. With the activations
of a small model on a CPU, that was half the time of a training step.
"""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Names of settings in glibc's malloc.h."""
TOP_PAD_BYTES = 64 * 2**20
NEVER_TRIM_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed blocks for the next tensors of this process; return whether the C library understood.

    The process holds on to the most memory it has ever used at once.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER_TRIM_BYTES), (M_TOP_PAD, TOP_PAD_BYTES))
    return all([mallopt(name, value) == 1 for name, value in settings])
