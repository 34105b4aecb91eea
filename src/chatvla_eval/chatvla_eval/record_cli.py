# SPDX-License-Identifier: Apache-2.0
"""Record a bag: `chatvla record`. The bag is a rosbag2 folder (mcap), readable at every moment."""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from chatvla_control.argument_types import filled, filled_path, positive
from chatvla_eval.arguments import ArgumentParser
from chatvla_eval.bags.topics import EVALUATION_TOPICS, absolute_patterns

__all__ = ["main"]

_NAMESPACE = re.compile(r"/?|/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?", re.ASCII)
_SAY_EVERY_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Record until SIGINT, SIGTERM or the given duration; return 0, or 1 when it failed, ended early or got nothing."""
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import try_shutdown

    from chatvla_control.ros.spin import stop_on_signals

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        return _record(arguments, stop_on_signals())
    except OSError as error:
        print(f"chatvla record: {error}", file=sys.stderr)
        return 1
    finally:
        try_shutdown()


def _record(arguments: argparse.Namespace, stop: threading.Event) -> int:
    from rclpy.node import Node

    from chatvla_control.ros.spin import spin_until
    from chatvla_eval.ros.recorder import Recorder

    node = Node("recorder")
    patterns = absolute_patterns(arguments.topics, arguments.namespace)
    recorder = Recorder(node, arguments.out, patterns=patterns, least_free_bytes=int(arguments.min_free_mb * 1e6))
    print(f"recording into {arguments.out}; Ctrl-C stops", flush=True)
    watcher = threading.Thread(target=_watch, args=(recorder, arguments.duration, stop), daemon=True)
    watcher.start()
    spin_until(node, stop)
    report = recorder.close()
    node.destroy_node()
    print(
        f"{report.messages} messages on {report.topics} topics, {report.bytes / 1e6:.1f} MB, {report.seconds:.1f} s, "
        f"{report.lost} lost: {arguments.out}",
        flush=True,
    )
    if report.failure:
        print(f"chatvla record: {report.failure}", file=sys.stderr)
    elif not report.topics:
        print(f"chatvla record: nothing was recorded: no topic fitted {', '.join(patterns)}", file=sys.stderr)
    elif not report.messages:
        print("chatvla record: nothing was recorded: no message came on the topics", file=sys.stderr)
    return 1 if report.failure or not report.messages else 0


def _watch(recorder: object, duration_s: float, stop: threading.Event) -> None:
    """Set `stop` when the duration is over or recording failed; say which topics are new."""
    started = time.monotonic()
    said: tuple[str, ...] = ()
    while not stop.wait(0.1):
        topics = recorder.topics  # type: ignore[attr-defined]
        if topics != said:
            print(f"recording {len(topics)} topics: {', '.join(topics)}", flush=True)
            said = topics
        if recorder.failed.is_set() or (duration_s and time.monotonic() - started >= duration_s):  # type: ignore[attr-defined]
            stop.set()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="chatvla record", description="Record the topics of an evaluation into a rosbag2 folder."
    )
    default = Path("runs") / "bags" / f"{datetime.now():%Y%m%d_%H%M%S}"
    parser.add_argument("bag", nargs="?", type=filled_path, help="the bag's folder, as --out gives it")
    parser.add_argument("--out", type=filled_path, help="the bag's folder; must not exist (default: runs/bags/TIME)")
    parser.add_argument(
        "--topics",
        nargs="+",
        type=filled,
        default=list(EVALUATION_TOPICS),
        help="names or patterns with *; relative to the namespace, or absolute with a slash in front "
        f"(default: {' '.join(EVALUATION_TOPICS)})",
    )
    parser.add_argument("--namespace", type=_namespace, default="chatvla", help="namespace of relative topics")
    parser.add_argument("--duration", type=positive, default=0.0, help="seconds to record (default: until Ctrl-C)")
    parser.add_argument(
        "--min-free-mb", type=positive, default=500.0, help="stop when less than this is free on the disk"
    )
    arguments = parser.parse_strictly(argv)
    if arguments.bag is not None and arguments.out is not None:
        parser.error(f"two folders are given, {arguments.bag} and {arguments.out}; name one")
    arguments.out = arguments.bag or arguments.out or default
    return arguments


def _namespace(text: str) -> str:
    if not _NAMESPACE.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no ROS namespace: between slashes it has letters, digits and underscores, no digit first"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
