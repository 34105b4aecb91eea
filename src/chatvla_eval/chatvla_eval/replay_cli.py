# SPDX-License-Identifier: Apache-2.0
"""Play a bag back: `chatvla replay BAG`; or through a policy, off line: `chatvla replay BAG --policy CHECKPOINT`.

Takes any rosbag2 folder, mcap or sqlite3.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from chatvla_control.argument_types import positive, view_heights
from chatvla_eval.arguments import ArgumentParser
from chatvla_eval.bags.topics import absolute_patterns

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Play the bag once; return 0, 1 when it cannot be read, 130 on Ctrl-C."""
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    if arguments.policy:
        from chatvla_eval.ros.policy_replay import run

        return run(arguments)
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import try_shutdown

    from chatvla_control.ros.spin import stop_on_signals

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    stop = stop_on_signals()
    try:
        return _replay(arguments, stop)
    except (OSError, ValueError) as error:
        print(f"chatvla replay: {error}", file=sys.stderr)
        return 1
    finally:
        try_shutdown()


def _replay(arguments: argparse.Namespace, stop: threading.Event) -> int:
    from rclpy.node import Node
    from tqdm import tqdm

    from chatvla_eval.ros.player import play_bag

    node = Node("player")
    try:
        with tqdm(total=100, unit="%", disable=arguments.quiet, bar_format="{l_bar}{bar}| {elapsed}") as bar:

            def show(done_s: float, total_s: float) -> None:
                bar.update(min(100.0, 100.0 * done_s / max(total_s, 1e-9)) - bar.n)

            report = play_bag(
                node,
                arguments.bag,
                patterns=absolute_patterns(arguments.topics, arguments.namespace),
                rate=arguments.rate,
                delay_s=arguments.delay,
                stopped=stop,
                on_progress=show,
            )
    finally:
        node.destroy_node()
    print(f"played {report.messages} messages on {report.topics} topics in {report.seconds:.1f} s")
    return 130 if stop.is_set() else 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(prog="chatvla replay", description="Play a rosbag2 folder back in time.")
    parser.add_argument("bag", type=Path, help="the bag's folder")
    parser.add_argument("--rate", type=positive, default=1.0, help="speed: 2 plays twice as fast")
    parser.add_argument(
        "--topics", nargs="+", default=["/*"], help="names or patterns with * (default: all in the bag)"
    )
    parser.add_argument("--namespace", default="chatvla", help="namespace of relative topics")
    parser.add_argument("--delay", type=positive, default=1.0, help="seconds before the first message, for subscribers")
    off_line = parser.add_argument_group("through a policy, without ROS or wall clock")
    off_line.add_argument("--policy", default="", help="checkpoint folder or name: replay through it, publish nothing")
    off_line.add_argument("--out", type=Path, default=Path("runs/replay"), help="folder for replay.json and chunks")
    off_line.add_argument("--seed", type=int, default=0, help="seed of the policy's noise")
    off_line.add_argument("--instruction", default="", help="follow this from the start (default: what the bag says)")
    off_line.add_argument("--inference", type=positive, default=0.1, help="seconds that one inference counts for")
    off_line.add_argument(
        "--view-height-deg",
        type=view_heights,
        default={},
        metavar="VIEW=DEG,...",
        help="take the middle of a view's images, so many degrees high by the bag's camera_info, as the node does",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_strictly(argv)


if __name__ == "__main__":
    sys.exit(main())
