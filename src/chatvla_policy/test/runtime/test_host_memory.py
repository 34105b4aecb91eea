# SPDX-License-Identifier: Apache-2.0
"""Freed memory stays with the process: the next tensors cost no page faults. In a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from chatvla_policy.runtime.host_memory import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
def work():
    for _ in range(5):
        torch.zeros(16_000_000)
for _ in range(6):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> tuple[int, int]:
    output = subprocess.run([sys.executable, "-c", CODE, word], capture_output=True, text=True, check=True).stdout
    kept, count = output.split()
    return int(kept), int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_memory_used_again_costs_no_page_faults() -> None:
    kept, count = faults("keep")
    assert kept == 1
    _, without = faults("as it is")
    assert without > 1000
    assert count < without / 20
