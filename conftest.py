# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test of the repository may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# OpenGL is chosen when mujoco is first imported, so this must happen before any test module is read.
os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROS_DOMAINS = 100


@pytest.fixture(scope="session")
def ros_domain() -> Iterator[int]:
    """Return a ROS_DOMAIN_ID (1 to 100) of this test run, on this host only; child processes inherit it."""
    domain = 1 + os.getpid() % ROS_DOMAINS
    from chatvla_cli.launch_graph import on_this_host

    wanted = {"ROS_DOMAIN_ID": str(domain), **on_this_host(Path(__file__).parent / "launch")}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    yield domain
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device or a real robot where there is none."""
    skip_robot = pytest.mark.skip(reason="needs a real robot: set CHATVLA_ROBOT=1")
    for item in items:
        if item.get_closest_marker("robot") and os.environ.get("CHATVLA_ROBOT") != "1":
            item.add_marker(skip_robot)
        if item.get_closest_marker("gpu") and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_cuda() -> bool:
    """Return whether torch is installed and sees a CUDA device."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
