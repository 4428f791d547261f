"""The control loop of a robot that a policy drives: what `run` and a cell's runtime have in common, in ROS 2."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from lehrling.datasets import messages
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import DamageError, InputError, LehrlingError
from lehrling.deploy.black_box import BlackBox
from lehrling.deploy.client import PolicyClient
from lehrling.deploy.corrections import Corrections
from lehrling.deploy.cycle import Recipe
from lehrling.deploy.execution import Execution
from lehrling.deploy.guard_events import Command
from lehrling.deploy.inference import ANSWER_S, Inference
from lehrling.deploy.policy_drive import QUIET, SWITCH, PolicyDrive, Tell, first_facts
from lehrling.deploy.ros_drive import Drive, control_loop
from lehrling.deploy.run_config import RunConfig
from lehrling.deploy.runtime import FAULTS, Result

FLAG = "std_msgs/msg/Bool"
TICKS_KEPT = 60_000
"""Ten minutes at 100 Hz."""
REST_NS = 5_000_000_000


@dataclass(frozen=True)
class Jitter:
    """How far control ticks were from their period [ms], and how many there were."""

    ticks: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class RobotLoop:
    """Holds the policy's drive with everything around it; use it as a context, from one thread.

    Attributes:
        drive: of the robot.
        recipes: by number; one that names no adapter has the server's first.
    """

    def __init__(
        self,
        config: RunConfig,
        recipes: Mapping[int, Recipe],
        tell: Tell,
        settled: Callable[[], bool] = lambda: True,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Connect to the policy server and lay out the robot.

        Args:
            config: of the robot.
            recipes: by number.
            tell: the audit.
            settled: whether all that was told is written.
            say: told sentences for whoever looks on.

        Raises:
            InputError: nobody serves policies there, or they do not fit the recipes or the robot.
        """
        self.config, self._say = config, say
        robot = config.robot()
        key = config.key()
        connect = partial(PolicyClient, config.server, key=key, certificate=config.certificate, answer_s=ANSWER_S + 1)
        self._inference = Inference(connect)
        with ExitStack() as made:
            made.callback(self._inference.close)
            if not self._inference.wait(config.connect_s):
                raise InputError(self._inference.problem)
            self.recipes = _named(recipes, self._inference.hello)
            facts = first_facts(self._inference.hello, self.recipes)
            limits = config.limits(robot)
            self.drive = PolicyDrive(robot, facts, self._inference, limits, tell, settled, config.interventions)
            made.callback(self.drive.guard.close)
            self._lay_out(robot)
            made.pop_all()

    def _lay_out(self, robot: Embodiment) -> None:
        """Make what is around the drive."""
        config, say = self.config, self._say
        if config.enable_topic:
            self.drive.require(SWITCH)
        self._flags = {topic: name for name, topic in self._flag_topics().items()}
        self._corrections = Corrections(config.corrections, robot, say) if config.corrections else None
        self._box = BlackBox(config.black_box, robot, tell=say) if config.black_box else None
        self._bound = self._names()
        self._ticks: deque[int] = deque(maxlen=TICKS_KEPT)
        self._by_hand, self._stopped = False, False
        self._traces, self._saver = 0, ThreadPoolExecutor(1, "traces")

    def _flag_topics(self) -> dict[str, str]:
        full, config = self.drive.link.full, self.config
        topics = {"success": config.success_topic, "enable": config.enable_topic}
        return {name: full(topic) for name, topic in topics.items() if topic}

    def _names(self) -> dict[str, str]:
        """Return the embodiment's topics by their full names."""
        topics = self.drive.link.layout.embodiment.binding.topics
        return {self.drive.link.full(topic): topic for topic in topics}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the robot and write what is to be written."""
        self._inference.close()
        self._saver.shutdown()
        if self._corrections is not None:
            self._corrections.close()
        if self._box is not None:
            self._box.close()
        self.drive.guard.close()

    @property
    def heard(self) -> dict[str, str]:
        """Topics to subscribe to -> message type: the policy's, and all of the embodiment's where they are recorded."""
        types = self.drive.link.layout.embodiment.binding.topics
        recorded = {full: types[name] for full, name in self._bound.items() if full not in self.told}
        more = recorded if self._corrections is not None or self._box is not None else {}
        return {**more, **self.drive.heard, **dict.fromkeys(self._flags, FLAG)}

    @property
    def told(self) -> dict[str, str]:
        """Topics to publish on -> message type."""
        return self.drive.told

    def hear(self, topic: str, cdr: bytes, now_ns: int, wall_ns: int) -> None:
        """Take a message."""
        if topic in self._flags:
            self._flag(self._flags[topic], cdr, now_ns)
            return
        self.drive.hear(topic, cdr, now_ns, wall_ns)
        self._keep(topic, cdr, now_ns, wall_ns)

    def _keep(self, topic: str, cdr: bytes, now_ns: int, wall_ns: int) -> None:
        if self._corrections is not None:
            self._corrections.take(topic, cdr, now_ns, wall_ns)
        if self._box is not None and topic in self._bound:
            self._box.take(self._bound[topic], cdr, received_ns=wall_ns, monotonic_ns=now_ns)

    def _flag(self, name: str, cdr: bytes, now_ns: int) -> None:
        try:
            up = bool(messages.decode(cdr, FLAG).data)
        except DamageError as error:
            self._say(str(error))
            return
        if name == "enable":
            self.drive.set_enabled(up, now_ns, SWITCH)
        elif up:
            self.drive.finish(Result.SUCCESS, f"{self.config.success_topic} is true.")

    def run(self, node: Any, executor: Any, step: Callable[[int], bool]) -> None:
        """Run until `step`, called in every tick with the monotonic time, returns False; where it raises, the robot rests first.

        Raises:
            InputError: a message type that the sourced ROS lacks.
        """
        hands = Drive(node, self)

        def tick(now_ns: int) -> bool:
            self._ticks.append(now_ns)
            going_on = step(now_ns)
            if not going_on and self.drive.cycle is None:
                return False
            self._look_back(self._move(hands, now_ns))
            return True

        gc.collect()
        gc.freeze()
        try:
            control_loop(executor, hands, self.drive.guard.config.period_ns, tick)
        except BaseException as error:
            self._rest(executor, hands, error)
            raise
        finally:
            gc.unfreeze()

    def _move(self, hands: Drive, now_ns: int) -> Command:
        """Make a step of the drive and publish what it commands."""
        wall_ns = time.time_ns()
        command, outgoing = self.drive.tick(now_ns, wall_ns)
        hands.publish(outgoing)
        for message in outgoing:
            self._keep(message.topic, message.cdr, now_ns, wall_ns)
        return command

    def _rest(self, executor: Any, hands: Drive, error: BaseException) -> None:
        """Bring the robot to rest after an error, as far as that still works."""
        self.drive.stop(f"The control loop ended by an error ({type(error).__name__}: {error}).")
        until_ns = time.monotonic_ns() + REST_NS

        def tick(now_ns: int) -> bool:
            self._move(hands, now_ns)
            return self.drive.cycle is not None and now_ns < until_ns

        with suppress(Exception):
            control_loop(executor, hands, self.drive.guard.config.period_ns, tick)
        while self.drive.ended:
            self._save(self.drive.ended.pop(0))

    def _look_back(self, command: Command) -> None:
        """Record what is to be recorded of the tick that was."""
        for event in command.events:
            if event.cause not in QUIET:
                self._say(f"guard: {event.text}")
        cycle = self.drive.cycle
        by_hand = cycle is not None and cycle.by_hand and cycle.result is None
        if self._corrections is not None and by_hand != self._by_hand:
            if by_hand and cycle is not None:
                self._corrections.begin(cycle.recipe.instruction, self._details(cycle))
            else:
                self._corrections.end()
        self._by_hand = by_hand
        if self._box is not None:
            self._keep_stop(self._box)
        while self.drive.ended:
            self._save(self.drive.ended.pop(0))

    def _keep_stop(self, box: BlackBox) -> None:
        """Keep what was before a stop or fault, once."""
        state = self.drive.state
        stopped = state.latched or state.fault_code != 0
        if stopped and not self._stopped:
            box.keep(self.drive.guard.latch.cause or FAULTS[state.fault_code], state.fault)
        self._stopped = stopped

    def _details(self, cycle: Execution) -> dict[str, str | int]:
        state = self.drive.state
        return {"cycle": cycle.number, "recipe": cycle.recipe.number, "model": state.model_hash}

    def _save(self, cycle: Execution) -> None:
        """Have a cycle's trace written, beside the control loop."""
        if self.config.traces is None:
            return
        self._traces += 1
        path = self.config.traces / f"cycle_{cycle.number:05d}_{self._traces:03d}.npz"
        self._saver.submit(self._write, cycle, path)

    def _write(self, cycle: Execution, path: Path) -> None:
        try:
            cycle.trace.save(path)
        except LehrlingError as error:
            self._say(str(error))

    @property
    def jitter(self) -> Jitter:
        """How even the control ticks of the last ten minutes were: |interval - period|."""
        off = np.abs(np.diff(np.array(self._ticks, dtype=np.int64)) - self.drive.guard.config.period_ns) / 1e6
        if not len(off):
            return Jitter(0, 0.0, 0.0, 0.0)
        p50, p99 = np.percentile(off, [50, 99])
        return Jitter(len(off), round(float(p50), 3), round(float(p99), 3), round(float(off.max()), 3))


def _named(recipes: Mapping[int, Recipe], hello: Mapping[str, Any]) -> dict[int, Recipe]:
    """Return the recipes, those that name no adapter with the server's first."""
    adapters = hello.get("adapters")
    first = next(iter(adapters), "") if isinstance(adapters, Mapping) else ""
    return {n: recipe if recipe.adapter else replace(recipe, adapter=str(first)) for n, recipe in recipes.items()}
