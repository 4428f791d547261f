"""What `lehrling run` does: the node, its cycles, and a report of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from lehrling.deploy.execution import Execution
    from lehrling.deploy.policy_node import PolicyNode
    from lehrling.deploy.run_config import RunConfig

READY_S = 60.0


@dataclass(frozen=True)
class RunPlan:
    """What to execute: see `lehrling run --help`."""

    instruction: str
    instruction_topic: str
    adapter: str
    cycles: int
    limit_s: float
    mode: str
    execute: int
    audit: Path | None


class Run:
    """Starts cycles one after another and notes what came of them."""

    def __init__(
        self, node: PolicyNode, plan: RunPlan, stopped: Callable[[], bool], say: Callable[[str], None]
    ) -> None:
        self.node, self.plan, self.stopped, self.say = node, plan, stopped, say
        self.cycles: list[dict[str, Any]] = []
        self._running: Execution | None = None
        self._begun_s = self._waiting_s = time.monotonic()
        self.fault = ""

    def step(self, now_ns: int) -> bool:
        """Do what is due in a tick; return whether to go on."""
        from lehrling.deploy.runtime import Phase

        node = self.node
        assert node.loop is not None
        node.step(now_ns)
        while node.said:
            self.say(node.said.pop(0))
        drive = node.loop.drive
        if self._running is not None and drive.cycle is None:
            self._note(self._running)
        if self.stopped():
            drive.stop("The command was interrupted.")
            return False
        if drive.phase is Phase.FAULT:
            self.fault = drive.state.fault
            return False
        if self.plan.cycles and len(self.cycles) >= self.plan.cycles:
            return False
        if drive.phase is Phase.READY and self.plan.cycles and self._running is None:
            node.start()
            self._begun_s = time.monotonic()
        self._running = drive.cycle
        if drive.cycle is not None:
            self._waiting_s = time.monotonic()
        elif self.plan.cycles and time.monotonic() - self._waiting_s > READY_S:
            self.fault = f"The robot was not ready within {READY_S:g} s; it is {drive.phase.value}."
            return False
        return True

    def _note(self, cycle: Execution) -> None:
        waits = sorted(cycle.waited_ns)
        result = cycle.result.value if cycle.result is not None else "aborted"
        told = {
            "cycle": cycle.number,
            "result": result,
            "why": cycle.why,
            "seconds": round(time.monotonic() - self._begun_s, 3),
            "chunks": cycle.chunks,
            "interventions": cycle.interventions,
            "answer_p50_ms": round(waits[len(waits) // 2] / 1e6, 1) if waits else None,
        }
        self.cycles.append(told)
        self.say(f"cycle {cycle.number}: {result} after {told['seconds']:.1f} s, {cycle.chunks} chunks. {cycle.why}")
        self._running = None


def run_policy(config: RunConfig, plan: RunPlan, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the node until its cycles are over; return the report.

    Raises:
        LehrlingError: the robot, the policy server or ROS 2 cannot be used.
    """
    from lehrling.deploy.cycle import Recipe
    from lehrling.deploy.ros_drive import ros_ready
    from lehrling.deploy.station import signals
    from lehrling.training.chunk import Mode

    ros_ready()
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from lehrling.deploy.policy_node import PolicyNode

    mode = cast("Mode", plan.mode)
    recipe = Recipe(1, "run", plan.instruction, plan.adapter, plan.limit_s, mode, plan.execute)
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = PolicyNode(config, recipe, plan.audit, instruction_topic=plan.instruction_topic, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        with signals() as stopped:
            loop = node.begin()
            running = Run(node, plan, stopped, say)
            loop.run(node, executor, running.step)
            jitter = loop.jitter
    finally:
        node.close()
        executor.shutdown(timeout_sec=0)
        node.destroy_node()
        context.try_shutdown()
    say(f"control ticks: {jitter.ticks}, off by p99 {jitter.p99_ms} ms, at most {jitter.max_ms} ms")
    return {"cycles": running.cycles, "fault": running.fault, "jitter": asdict(jitter)}
