# SPDX-License-Identifier: Apache-2.0
"""Show a simulated bench to the other nodes as cameras and a robot would: images, joint states, commands, reset.

Topics (relative): out the bench's camera streams (camera/<view>/image_raw and camera_info unless the bench names
others), sim/joint_states, sim/bench_state (the truth: for
scorers and
privileged policies only); in sim/joint_command; service sim/reset_bench. Stamps are ROS time.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs.msg import JointState as JointStateMsg

from chatvla_control.arm_port import JointState
from chatvla_control.ros.convert import ConversionError, image_to_msg, joint_state_from_msg, joint_state_to_msg
from chatvla_control.ros.convert_scene import scene_truth_to_msg
from chatvla_control.ros.parameters import declare
from chatvla_control.ros.qos import NEWEST_UNRELIABLE
from chatvla_control.ros.spin import spin_until, stop_on_signals
from chatvla_control.scene import SEEDS_PER_RUN, SceneTruth
from chatvla_msgs.msg import BenchState
from chatvla_msgs.srv import ResetBench
from chatvla_sim.bench import BenchError, CameraStream
from chatvla_sim.benches import bench_names, bench_robot, make_bench
from chatvla_sim.real_time import RealTimeBench

__all__ = ["SimNode", "main"]

LARGEST_SEED = 2**63 // SEEDS_PER_RUN - 1
"""Scenes' seeds then fit into a signed 64-bit number; ResetBench takes twice as much."""
COMPLAIN_EVERY_S = 5.0


class SimNode(Node):
    """One bench in real time."""

    def __init__(self, *, node_name: str = "sim_node", on_failure: Callable[[], None] | None = None) -> None:
        """`on_failure` is called, in another thread, when the simulation stops; `failure` then says why.

        Raises BenchError, ParameterError or MissingHandwritingError with one sentence when a parameter does not fit.
        """
        super().__init__(node_name)
        task = declare(self, "task", "math_match", "Name of the bench.", choices=bench_names())
        robot = declare(self, "robot", "", "Name of the robot; it must be the bench's own. Empty: the bench's own.")
        split = declare(self, "split", "in_domain", "Split of the first scene.")
        seed = declare(
            self,
            "seed",
            0,
            "Seed of the run: the first scene has the seed 100000 times this.",
            low=0,
            high=LARGEST_SEED,
        )
        swap = declare(self, "swap", False, "Permute the objects' places of the first scene.")
        fonts = declare(
            self, "equation_fonts", "", "Font files, separated by commas, for all writing; empty: the split's own."
        )
        rate_hz = declare(self, "camera_rate_hz", 30.0, "Pictures per second and camera.", low=0.5, high=120.0)
        self._encoding = declare(
            self,
            "camera_encoding",
            "native",
            "Encoding of the images; native: as the real camera's driver publishes.",
            choices=("native", "rgb8", "bgr8", "rgba8", "bgra8", "mono8"),
        )
        views = declare(
            self, "views", "", "Cameras to show, of the bench's, separated by commas; empty: its own choice."
        )
        viewer = declare(self, "viewer", False, "Open a window onto the scene; needs a display.")
        self._fonts = [name.strip() for name in fonts.split(",") if name.strip()]
        bench = make_bench(task, robot=robot or bench_robot(task))
        bench.use_views([view.strip() for view in views.split(",") if view.strip()])
        self._streams = {view: bench.stream(view) for view in bench.views}
        self._views = {view: self._camera_publishers(stream) for view, stream in self._streams.items()}
        self._joints = self.create_publisher(JointStateMsg, "sim/joint_states", 10)
        latest = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._truth = self.create_publisher(BenchState, "sim/bench_state", latest)
        self._bench, self._spec = bench, bench.spec
        self.failure = ""
        self._on_failure = on_failure or (lambda: None)
        self._complained_s = -COMPLAIN_EVERY_S
        bench.reset(split=split, seed=SEEDS_PER_RUN * seed, swap=swap, equation_fonts=self._fonts or None)
        self._real_time = RealTimeBench(
            bench,
            clock=self._now_s,
            on_joints=self._publish_joints,
            on_truth=self._publish_truth,
            on_image=self._publish_image,
            on_error=self._fail,
            camera_rate_hz=rate_hz,
            show=self._open_viewer() if viewer else None,
        )
        self.create_subscription(JointStateMsg, "sim/joint_command", self._on_command, NEWEST_UNRELIABLE)
        self.create_service(ResetBench, "sim/reset_bench", self._on_reset)
        self._real_time.start()
        self.get_logger().info(f"{task} runs: split {split}, seed {seed}, cameras {', '.join(bench.views)}")

    def close(self) -> None:
        """Stop the simulation and destroy the node."""
        self._real_time.close()
        self.destroy_node()

    def _camera_publishers(self, stream: CameraStream) -> tuple[Publisher, Publisher]:
        return (
            self.create_publisher(Image, stream.image_topic, 2),
            self.create_publisher(CameraInfo, stream.info_topic, 2),
        )

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _on_command(self, msg: JointStateMsg) -> None:
        try:
            positions = joint_state_from_msg(msg, self._spec.joint_names).positions
            self._real_time.command(positions)
        except (ConversionError, ValueError) as error:
            if self._now_s() - self._complained_s > COMPLAIN_EVERY_S:
                self._complained_s = self._now_s()
                self.get_logger().warning(f"refused a message on sim/joint_command: {error!s:.300}")

    def _on_reset(self, request: ResetBench.Request, response: ResetBench.Response) -> ResetBench.Response:
        try:
            truth = self._real_time.reset(
                split=request.split, seed=request.seed, swap=request.swap, fonts=self._fonts or None
            )
        except (BenchError, RuntimeError) as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.instruction = True, truth.instruction
        return response

    def _publish_joints(self, state: JointState) -> None:
        if self.context.ok():
            self._joints.publish(joint_state_to_msg(self._spec.joint_names, state))

    def _publish_truth(self, truth: SceneTruth, stamp_s: float) -> None:
        if self.context.ok():
            msg = scene_truth_to_msg(
                dataclasses.replace(truth, stamp_s=stamp_s),
                frame_id=self._spec.base_frame,
                real_time_factor=self._real_time.real_time_factor,
            )
            self._truth.publish(msg)

    def _publish_image(self, view: str, image: NDArray[np.uint8], stamp_s: float) -> None:
        if not self.context.ok():
            return
        images, infos = self._views[view]
        stream = self._streams[view]
        encoding = stream.encoding if self._encoding == "native" else self._encoding
        msg = image_to_msg(image, stamp_s, stream.frame_id, encoding)
        camera = self._bench.camera(view)
        info = CameraInfo(header=msg.header, height=image.shape[0], width=image.shape[1], distortion_model="plumb_bob")
        info.d = [0.0] * 5
        info.k = camera.intrinsics.flatten().tolist()
        info.r = np.eye(3).flatten().tolist()
        info.p = np.column_stack([camera.intrinsics, np.zeros(3)]).flatten().tolist()
        images.publish(msg)
        infos.publish(info)

    def _fail(self, error: BaseException) -> None:
        self.failure = f"the simulation stopped: {type(error).__name__}: {error}"
        self._on_failure()

    def _open_viewer(self) -> Callable[[], None] | None:
        refresh: Callable[[], None] | None
        try:
            refresh = self._bench.open_viewer()
        except BenchError as error:
            self.get_logger().error(f"no viewer: {error}")
            return None

        def show() -> None:
            nonlocal refresh
            try:
                if refresh is not None:
                    refresh()
            except BenchError as error:
                refresh = None
                self.get_logger().error(f"no viewer any more: {error}")

        return show


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the exit code."""
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    stop = stop_on_signals()
    node: SimNode | None = None
    try:
        node = SimNode(on_failure=stop.set)
        spin_until(node, stop)
        if node.failure:
            print(f"sim_node: {node.failure}", file=sys.stderr)
            return 1
        return 0
    except (ValueError, RuntimeError) as error:
        print(f"sim_node: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.close()
        try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
