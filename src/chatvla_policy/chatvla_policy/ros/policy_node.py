# SPDX-License-Identifier: Apache-2.0
"""Serve a checkpoint on a robot's topics: camera images and joint states in, reasoning and action chunks out.

A lifecycle node: configure loads the checkpoint and compares it with the live graph, activate warms up and runs the
golden input. Topics, services, parameters, error codes: docs/policy_node.md. The scene's truth is never heard.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import Image
from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import String

from chatvla_control.contracts import Policy
from chatvla_control.ros.forced_text import LONGEST_TEXT, ForcedText
from chatvla_control.ros.qos import NEWEST
from chatvla_control.ros.spin import spin_until, stop_on_signals
from chatvla_msgs.msg import ActionChunk as ActionChunkMsg
from chatvla_msgs.msg import Reasoning as ReasoningMsg
from chatvla_msgs.msg import RouterStats as RouterStatsMsg
from chatvla_msgs.srv import Ask, OverrideReasoning
from chatvla_policy.ros.acting import Acting, Publishers
from chatvla_policy.ros.driver_watch import DriverWatch
from chatvla_policy.ros.following import Following
from chatvla_policy.ros.health import health_report
from chatvla_policy.ros.input_thread import InputThread
from chatvla_policy.ros.live_graph import InputsMissingError, camera_topic
from chatvla_policy.ros.loading import Loading, check_setup, load, release_memory, settle_memory
from chatvla_policy.ros.observing import Observing
from chatvla_policy.ros.overlay_topic import OverlayTopic
from chatvla_policy.ros.parameters import PolicyParameters
from chatvla_policy.ros.questions import Questions
from chatvla_policy.runtime.host_memory import keep_freed_memory
from chatvla_policy.runtime.observation_sync import ObservationSync
from chatvla_policy.runtime.scheduler import Scheduler
from chatvla_policy.runtime.view_window import Window

__all__ = ["PolicyNode", "main"]

_TICK_S, _REPORT_S, _RETRY_S = 0.5, 1.0, 1.0
OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyNode(LifecycleNode):
    """The policy on ROS. `loader` gets the parameters and returns the policy: a checkpoint's, by default."""

    def __init__(
        self,
        *,
        node_name: str = "policy_node",
        loader: Callable[[PolicyParameters], Policy] = load,
        stop: threading.Event | None = None,
        on_give_up: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> None:
        """`stop` ends the wait for inputs; `on_give_up` is called when autostart met what waiting does not mend.

        Raises ParameterError with one sentence when a parameter does not fit.
        """
        super().__init__(node_name, **options)
        self.parameters = PolicyParameters(self)
        self._loading, self._stop = Loading(loader, self.parameters), stop or threading.Event()
        self._acting: Acting | None = None
        self._following: Following | None = None
        self._end_serving: Callable[[], None] = lambda: None
        self._refusal = ""
        self._stale_settings = False
        self._state = "unconfigured"
        self._parts: list[Callable[[], Any]] = []
        self.gave_up, self._failed_for_good, self._on_give_up = False, False, on_give_up
        self._wake: Any = None
        self.add_on_set_parameters_callback(self._on_parameters)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Steady: a clock that is set back must not silence the node.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_REPORT_S, self._report, clock=self._steady)
        if self.parameters.autostart:
            self._starting = self.create_timer(0.05, self._autostart, clock=self._steady)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the checkpoint and compare it with the graph; refuse with one sentence."""
        try:
            policy = self._loading.policy()
            windows = check_setup(self, policy, self.parameters, self._stop.is_set)
            forced = ForcedText(getattr(policy, "check_forced", lambda text: None))
            if text := str(self.parameters.value("force")).strip():
                forced.begin_with(text)
        except (ValueError, RuntimeError, OSError) as error:
            waiting = isinstance(error, InputsMissingError)
            if not waiting:
                self._loading.forget()
            self._refuse(f"{error}", waiting=waiting)
            return FAILED
        setup = policy.setup  # type: ignore[attr-defined]
        self._refusal, self._state, self._forced = "", "inactive", forced
        self._build(policy, setup, windows)
        self.get_logger().info(f"{policy.name} is configured for {setup.spec.name} with {', '.join(setup.cameras)}")
        return OK

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run the golden input, which warms the model up; then act."""
        acting, policy = self._acting, self._policy
        assert acting is not None
        try:
            worst = acting.run_once(getattr(policy, "check_golden", lambda: None))
        except (ValueError, RuntimeError) as error:
            self._refuse(f"{error}", waiting=False)
            return FAILED
        if worst is not None:
            self.get_logger().info(f"the golden input differs by {worst:.2g} from what was stored")
        self._state = "active"
        settle_memory()
        acting.begin()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the goal, brake to rest, publish nothing more."""
        self._end("the node was deactivated")
        self._state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the checkpoint's memory and leave the graph."""
        self._free("the node was cleaned up")
        self._state = "unconfigured"
        return OK

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything."""
        self._free("the node is shutting down")
        self._state = "finalized"
        return OK

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after an unforeseen failure in a transition; the node may be configured again."""
        self._free("a transition failed")
        self._state = "unconfigured"
        return OK

    def farewell(self) -> Callable[[], bool]:
        """End what is followed and take up nothing more; return what says that the goal's sender knows."""
        self._end("the node is shutting down")
        self._state = "finalized"
        return lambda: self._following is None or self._following.told

    def close(self) -> None:
        """End what runs and destroy the node."""
        self._free("the node is shutting down", last=True)
        self._end_serving()
        self.destroy_node()

    def _build(self, policy: Policy, setup: Any, windows: dict[str, Window]) -> None:
        """Make what exists from configure to cleanup."""
        self._policy = policy
        self._tuning = getattr(policy, "settings", None)
        sizes = {view: window.size for view, window in windows.items()}
        self._sync = ObservationSync(setup.spec, setup.cameras, settings=self.parameters.sync, sizes=sizes)
        scheduler = Scheduler(
            spec=setup.spec,
            sync=self._sync,
            settings=self.parameters.scheduler(),
            tuning=self.parameters.tuned(self._tuning),
        )
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publishers = Publishers(
            reasoning=self._lifecycle_publisher(ReasoningMsg, "reasoning", latched),
            chunk=self._lifecycle_publisher(ActionChunkMsg, "action_chunk", QoSProfile(depth=1)),
            router=self._lifecycle_publisher(RouterStatsMsg, "router", QoSProfile(depth=1)),
        )
        # The executor wakes when there is something to do: each time costs a node of this size a millisecond.
        wake = self._wake = self.create_guard_condition(self._tick)
        threads = self.parameters.threads
        acting = self._acting = Acting(self, policy, scheduler, publishers, threads=threads, wake=wake.trigger)
        self._overlay = OverlayTopic(self, self._lifecycle_publisher(Image, "overlay", QoSProfile(depth=1)), acting)
        self._parts.append(self._overlay.close)
        self._driver = DriverWatch(setup.spec.name, namespace=self.get_namespace())
        given = (self._driver, self._forced, self.parameters, self._inactive, wake.trigger)
        self._following = Following(self, acting, policy, *given)
        questions = Questions(policy, acting, threads=threads, refusal=self._inactive)
        self._parts.append(questions.close)
        inputs = InputThread(self)
        observing = Observing(self._sync, acting, setup.spec.joint_names)
        for view, window in windows.items():
            inputs.subscribe(Image, camera_topic(view), observing.of_camera(view, window), raw=True)
        inputs.subscribe(JointStateMsg, "joint_states", observing.on_joints)
        inputs.start()
        self._parts.append(inputs.close)
        self._subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=20))
        self._subscribe(String, "instruction", self._on_instruction, NEWEST)
        self._serve(OverrideReasoning, "override_reasoning", self._on_override)
        self._serve(Ask, "ask", questions.on_ask)
        tick = self.create_timer(_TICK_S, self._tick, clock=self._steady)
        self._parts += [lambda: self.destroy_timer(tick), lambda: self.destroy_guard_condition(wake)]

    def _lifecycle_publisher(self, kind: Any, topic: str, qos: QoSProfile) -> Any:
        publisher = self.create_lifecycle_publisher(kind, topic, qos)
        self._parts.append(lambda: self.destroy_lifecycle_publisher(publisher))
        return publisher

    def _subscribe(self, kind: Any, topic: str, callback: Callable[..., None], qos: QoSProfile) -> None:
        subscription = self.create_subscription(kind, topic, callback, qos)
        self._parts.append(lambda: self.destroy_subscription(subscription))

    def _serve(self, kind: Any, name: str, callback: Callable[..., Any]) -> None:
        # A call that waits for its answer must not keep the node's other callbacks waiting.
        service = self.create_service(kind, name, callback, callback_group=ReentrantCallbackGroup())
        self._parts.append(lambda: self.destroy_service(service))

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        self._driver.on_diagnostics(msg, self.get_clock().now().nanoseconds * 1e-9)

    def _on_instruction(self, msg: String) -> None:
        text = msg.data.strip()
        if len(text) > LONGEST_TEXT:
            self.get_logger().warning(f"instruction of {len(text)} characters ignored, allowed are {LONGEST_TEXT}")
        elif refusal := self._inactive():
            self.get_logger().warning(f"instruction ignored: {refusal}")
        elif self._following is not None:
            self._following.follow_topic(text)

    def _on_override(self, request: OverrideReasoning.Request, response: Any) -> Any:
        self._forced.on_request(request, response)
        if response.success and self._acting is not None:
            self._acting.force(self._forced.text)
        return response

    def _on_parameters(self, parameters: list[Parameter]) -> Any:
        result = self.parameters.refusal(parameters, unconfigured=self._acting is None)
        if result.successful and self._acting is not None:
            self._stale_settings = True
            self._wake.trigger()
        return result

    def _tick(self) -> None:
        """Bring changed parameters into force, watch the goal, begin what is due."""
        acting = self._acting
        if acting is None or self._following is None:
            return
        if self._stale_settings:
            self._stale_settings = False
            with acting.lock:
                acting.scheduler.settings = self.parameters.scheduler()
                acting.scheduler.tuning = self.parameters.tuned(self._tuning)
        if self._state == "active":
            self._following.watch()
            acting.pump()
        self._overlay.tend(self.parameters.value("overlay_rate_hz"))

    def _inactive(self) -> str:
        """Return why nothing is done now, or ""."""
        return "" if self._state == "active" else f"the policy node is {self._state}; activate it first"

    def _autostart(self) -> None:
        """Configure and activate; wait for missing inputs, give up on what waiting does not mend."""
        self.destroy_timer(self._starting)
        if self._acting is None and self.trigger_configure() is not OK:
            if not self._failed_for_good:
                self._starting = self.create_timer(_RETRY_S, self._autostart, clock=self._steady)
        elif self.trigger_activate() is not OK:
            self._failed_for_good = True
        if self._failed_for_good:
            self.gave_up = True
            self._on_give_up()

    def _refuse(self, sentence: str, *, waiting: bool) -> None:
        self._refusal = sentence
        self._failed_for_good = not waiting
        (self.get_logger().warning if waiting else self.get_logger().error)(sentence)
        self._report()

    def _end(self, why: str) -> None:
        if self._following is not None:
            self._following.end(why)
        if self._acting is not None:
            self._acting.stop()

    def _free(self, why: str, *, last: bool = False) -> None:
        """End what runs and let go of the checkpoint; `last`: the node is spun no more, and its process ends."""
        self._end(why)
        if self._following is not None:
            self._end_serving = self._following.destroy(why, served=not last)
        if self._acting is not None:
            self._acting.close()
        for destroy in self._parts:
            destroy()
        self._parts.clear()
        self._acting = self._following = None
        self._loading.forget()
        self._policy = self._sync = self._tuning = self._forced = None  # type: ignore[assignment]
        if not last:
            release_memory()

    def _report(self) -> None:
        name = str(self.parameters.value("checkpoint"))
        report = health_report(self, state=self._state, checkpoint=name, acting=self._acting, refusal=self._refusal)
        self._diagnostics.publish(report)


def main(args: Sequence[str] | None = None, *, loader: Callable[[PolicyParameters], Policy] = load) -> int:
    """Run the node until SIGINT or SIGTERM; return the exit code, 2 when autostart failed for good."""
    keep_freed_memory()
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    stop = stop_on_signals()
    # The inference thread shares the interpreter with the callbacks: it yields after 0.5 ms instead of 5.
    sys.setswitchinterval(0.0005)
    node: PolicyNode | None = None
    try:
        node = PolicyNode(loader=loader, stop=stop, on_give_up=stop.set)
        spin_until(node, stop, farewell=node.farewell)
        return 2 if node.gave_up else 0
    except (ValueError, RuntimeError) as error:
        print(f"policy_node: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.close()
        try_shutdown()
        # The interpreter would look through all of torch once more before it ends.
        gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
