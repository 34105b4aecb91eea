# SPDX-License-Identifier: Apache-2.0
"""Open a bag in the four ways of the suite: into a data set, through a policy, for scores, and played back."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

import rclpy
from rclpy.node import Node

from chatvla_control.robot_spec import robot_spec
from chatvla_eval.ros.bag_messages import BagError as ScoreBagError
from chatvla_eval.ros.bag_messages import read_bag as read_for_scores
from chatvla_eval.ros.player import BagUnreadableError, play_bag
from chatvla_eval.ros.policy_replay import BagInputs, ReplayError
from chatvla_training.ros.bag_reader import BagError, read_bag

__all__ = ["REFUSALS", "open_bag"]

REFUSALS = ("BagError", "BagUnreadableError", "ReplayError")
"""Errors by which a way refuses a bag."""
_DOMAIN = 101


def open_bag(folder: Path) -> str:
    """Return what was read, and which ways refused. Raises the first refusal when all ways refused."""
    refusals: list[Exception] = []
    read: list[str] = []
    for way in (_import, _replay, _score, _play):
        try:
            read.append(way(folder))
        except (BagError, BagUnreadableError, ReplayError, ScoreBagError) as error:
            refusals.append(error)
    if not read:
        raise refusals[0]
    return "; ".join([*read, *(f"refused: {error!s:.100}" for error in refusals)])


def _import(folder: Path) -> str:
    contents = read_bag(folder, robot_spec("arx_r5"), namespace="chatvla", codec="png", frame_hz=10.0)
    return f"{len(contents.measured.times_s)} rows, bad: {dict(contents.bad)!r:.200}"


def _replay(folder: Path) -> str:
    inputs = list(BagInputs(folder=folder, spec=robot_spec("arx_r5"), cameras=("top",), prefix="/chatvla/"))
    return f"{len(inputs)} inputs, refused: {sum(item.refusal is not None for item in inputs)}"


def _score(folder: Path) -> str:
    return f"{len(read_for_scores(folder).motion)} states to score"


def _play(folder: Path) -> str:
    report = play_bag(_node(), folder, patterns=["/*"], rate=1e6, delay_s=0.0, stopped=_stop_after(5.0))
    return f"{report.messages} messages played"


def _stop_after(seconds: float) -> threading.Event:
    """Return an event that is set after `seconds`: a forged time stamp must not keep the campaign."""
    event = threading.Event()
    timer = threading.Timer(seconds, event.set)
    timer.daemon = True
    timer.start()
    return event


@cache
def _node() -> Node:
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=_DOMAIN)
    return Node("player", context=context, use_global_arguments=False)
