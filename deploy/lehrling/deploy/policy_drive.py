"""A policy drives a robot: observations in, chunks asked for, targets through the guard, cycle by cycle. No ROS, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError, LehrlingError, StorageError
from lehrling.deploy.action_rows import ActionRows
from lehrling.deploy.cycle import Recipe, Trace
from lehrling.deploy.guard_events import Cause, Command, Event, State
from lehrling.deploy.guard_limits import GuardConfig
from lehrling.deploy.guard_link import GuardLink, Outgoing
from lehrling.deploy.inference import Question, Reply
from lehrling.deploy.observer import Observer, request
from lehrling.deploy.policy_facts import PolicyFacts
from lehrling.deploy.runtime import Axis, Phase, Result, RuntimeState
from lehrling.training.chunk import ChunkRunner

MS = 1_000_000
ENABLED_NS, FAILURES_MAX, TOLD_NS = 200 * MS, 3, 1_000 * MS
BLIND_NS = 2_000 * MS
"""Without a whole observation for so long, a cycle is over; the guard held the robot long before."""
PAUSING = (Cause.DEADMAN, Cause.OBSERVATION, Cause.OVERRIDE, Cause.NOT_FINITE)
"""While the guard holds for one of these, the steps of a chunk do not pass."""
QUIET = (Cause.SCALED, Cause.ACTION, Cause.LATE, Cause.IDLE, Cause.RESYNC, Cause.DEADMAN)
"""Part of driving by chunks: counted, not told one by one."""
FATAL: Mapping[Cause, int] = {
    Cause.FIRST_MOVE: 4,
    Cause.CONTRACT: 9,
    Cause.NOT_FINITE: 4,
    Cause.SHAPE: 4,
    Cause.WORKSPACE: 4,
    Cause.COLLISION: 4,
    Cause.CLAMPS: 4,
}
Tell = Callable[[str, Mapping[str, Any]], None]
"""Told what happens, for the audit; raises StorageError where it cannot be written."""


class Asking(Protocol):
    """Where questions go and replies come from, as `Inference` does it."""

    hello: dict[str, Any]
    problem: str

    @property
    def connected(self) -> bool:
        """Whether a policy server is there."""
        ...

    def ask(self, question: Question) -> None:
        """Put a question."""
        ...

    def take(self) -> list[Reply]:
        """Return the replies since the last call."""
        ...


@dataclass
class Cycle:
    """One cycle that executes.

    Attributes:
        position: step, with the part of it that has passed.
        base_ns: when it began.
        seen_ns: when there last was a whole observation, or the cycle began.
        failures: questions in a row that came to nothing.
    """

    number: int
    recipe: Recipe
    runner: ChunkRunner
    trace: Trace
    base_ns: int
    seen_ns: int
    position: float = 0.0
    failures: int = 0
    chunks: int = 0
    waited_ns: list[int] = field(default_factory=list)
    result: Result | None = None
    why: str = ""


class PolicyDrive:
    """Executes recipes; one thread calls `hear` and `tick`, the latter at the guard's rate.

    Attributes:
        link: to the guard, the only way to the robot.
        ended: the cycles that have ended, the newest last, until they are taken.
    """

    def __init__(
        self, embodiment: Embodiment, facts: PolicyFacts, inference: Asking, config: GuardConfig, tell: Tell
    ) -> None:
        """Lay out guard and observations for the first policy; those of other recipes must be like it.

        Raises:
            ContractError: the policy is of another robot.
            InputError: the guard cannot command what the policy gives.
        """
        view = facts.layout(embodiment)
        streams = list(dict.fromkeys(part.stream for part in view.action))
        self.link = GuardLink.of(embodiment, config, streams=streams, cameras=facts.view.cameras)
        self.guard, self.facts = self.link.guard, facts
        self._rows, self._eyes = ActionRows(view, self.link.layout), Observer(embodiment, facts.view)
        self._inference, self._tell = inference, tell
        self._period_ns = 1e9 / facts.view.rate_hz
        self._recipe: Recipe | None = None
        self._model_hash = ""
        self._cycle: Cycle | None = None
        self._ids = self._number = 0
        self._result, self._fault, self._code = Result.NONE, "", 0
        self._enabled_ns, self._before_ns = -ENABLED_NS, 0
        self._speed = 1.0
        self._command: Command | None = None
        self._told: dict[Cause, int] = {}
        self.ended: list[Cycle] = []

    @property
    def heard(self) -> dict[str, str]:
        """Topics to subscribe to -> message type."""
        return {**self._eyes.heard, **self.link.heard}

    @property
    def told(self) -> dict[str, str]:
        """Topics to publish on -> message type."""
        return self.link.told

    def hear(self, topic: str, cdr: bytes, now_ns: int, wall_ns: int) -> None:
        """Take a robot's message."""
        if topic in self.link.heard:
            self.link.hear(topic, cdr, now_ns, wall_ns)
        self._eyes.hear(topic, cdr, wall_ns)

    def load(self, recipe: Recipe) -> None:
        """Make a recipe the next one.

        Raises:
            InputError: a cycle executes.
        """
        if self._cycle is not None:
            raise InputError(f"Cycle {self._cycle.number} executes; load a recipe when it has ended.")
        self._recipe, self._model_hash = recipe, ""
        self._say("recipe", number=recipe.number, name=recipe.name, adapter=recipe.adapter)

    def start(self, number: int, now_ns: int) -> None:
        """Begin a cycle.

        Raises:
            InputError: it cannot begin now; the message says why.
        """
        phase = self.phase
        if phase is not Phase.READY or self._recipe is None:
            raise InputError(f"Expected a robot that is ready, but it is {phase.value}. {self._fault}".strip())
        if not self._rows.hold(self.link.latest):
            raise InputError("No observation tells yet where the robot is.")
        trace = Trace(self.link.layout.names, round(self._period_ns))
        self._ids += 1
        self._number = number
        self._cycle = Cycle(number, self._recipe, self._recipe.runner(self.facts.chunk), trace, now_ns, now_ns)
        self._say("start", cycle=number, recipe=self._recipe.number, model=self._model_hash)
        if self._cycle is not None:
            self.guard.accept(self.link.layout.claim())

    def finish(self, result: Result, why: str) -> None:
        """End the cycle that executes; the robot comes to rest along its path."""
        if self._cycle is not None and self._cycle.result is None:
            self._cycle.result, self._cycle.why = result, why
            self.guard.drop()

    def stop(self, cause: str) -> None:
        """Bring the robot to rest."""
        self.finish(Result.ABORTED, cause)

    def protective_stop(self, now_ns: int, cause: str) -> None:
        """Request a protective stop, which stays latched."""
        self.guard.stop(now_ns, cause)

    def reset(self, operator: str) -> None:
        """End a fault, if its cause is gone; a latched stop stays, it is for an operator at the robot."""
        if self._cycle is None and not self.guard.latch.latched:
            self._fault, self._code = "", 0
            self._say("reset", by=operator)

    def set_speed(self, share: float, now_ns: int) -> None:
        """Set the speed override, 0 to 1."""
        if self.guard.override(now_ns, 100 * share):
            self._speed = share

    def set_enabled(self, enabled: bool, now_ns: int) -> None:
        """Renew or withdraw the permission to move."""
        self._enabled_ns = now_ns if enabled else now_ns - ENABLED_NS
        if not enabled:
            self.guard.release()

    def fail(self, code: int, text: str) -> None:
        """Note a fault; a cycle that executes is aborted."""
        if not self._code:
            self._fault, self._code = text, code
            self.finish(Result.ABORTED, text)
            self._say("fault", code=code, text=text)

    @property
    def phase(self) -> Phase:
        """What is being done."""
        if self._cycle is not None:
            return Phase.EXECUTING if self._cycle.result is None else Phase.STOPPING
        if self._code or self.guard.latch.latched:
            return Phase.FAULT
        if not np.isfinite(self.guard.measured[self.guard.axes.measured]).all():
            return Phase.OFFLINE
        if self._recipe is None:
            return Phase.IDLE
        return Phase.READY if self._model_hash and self._inference.connected else Phase.LOADING

    @property
    def state(self) -> RuntimeState:
        """What is to be told of all this."""
        latched = self.guard.latch.latched
        code, fault = self._code, self._fault
        if latched and not code:
            code, fault = 5, f"A stop is latched ({self.guard.latch.cause}); an operator at the robot must reset it."
        measured = self.guard.measured
        velocity = self._command.velocity if self._command is not None else np.zeros_like(measured)
        axes = zip(self.link.layout.names, measured, velocity, strict=True)
        known = {name: Axis(float(p), float(v)) for name, p, v in axes if np.isfinite(p)}
        recipe = 0 if self._recipe is None else self._recipe.number
        return RuntimeState(
            self.phase, recipe, self._number, self._result, fault, code, latched, self._speed, self._model_hash, known
        )

    def tick(self, now_ns: int, wall_ns: int) -> tuple[Command, list[Outgoing]]:
        """Make one step of the control loop; return the command and the messages to publish."""
        self._know_policy()
        for reply in self._inference.take():
            self._take(reply, now_ns)
        if self._cycle is not None:
            self._drive(self._cycle, now_ns, wall_ns)
        command, outgoing = self.link.step(now_ns, wall_ns)
        self._command, self._before_ns = command, now_ns
        self._judge(command)
        return command, outgoing

    def _know_policy(self) -> None:
        """Find the recipe's policy in what the server tells, once it is there."""
        recipe, inference = self._recipe, self._inference
        if recipe is None or self._model_hash or self._code or not inference.connected:
            return
        try:
            facts = PolicyFacts.from_hello(inference.hello, recipe.adapter)
            if problem := self.facts.differs(facts):
                raise InputError(problem)
            if recipe.model_hash not in ("", facts.model_hash):
                raise InputError(
                    f"Recipe {recipe.number} is for the model {recipe.model_hash[:12]}, the server has {facts.model_hash[:12]} as "
                    f"{recipe.adapter!r}."
                )
        except LehrlingError as error:
            self.fail(9, str(error))
            return
        self._model_hash = facts.model_hash
        self._say("adapter", name=recipe.adapter, model=facts.model_hash, statistics=facts.statistics_hash)

    def _drive(self, cycle: Cycle, now_ns: int, wall_ns: int) -> None:
        """Renew what the guard wants to be renewed, let steps pass and ask for the next chunk."""
        if self._inference.connected:
            self.guard.client(now_ns)
        if now_ns - self._enabled_ns < ENABLED_NS:
            self.guard.enable(now_ns)
        if cycle.result is not None:
            return
        command = self._command
        if command is None or command.cause not in PAUSING:
            passed = (now_ns - self._before_ns) * self._speed / self._period_ns if self._before_ns else 0.0
            cycle.position = min(cycle.position + passed, float(max(cycle.runner.end, cycle.runner.step)))
            cycle.runner.advance(int(cycle.position))
        if now_ns - cycle.base_ns > cycle.recipe.limit_s * 1e9:
            self.finish(Result.TIMEOUT, f"The cycle took more than {cycle.recipe.limit_s:g} s.")
        elif now_ns - self._enabled_ns < ENABLED_NS and self._inference.connected:
            self._ask(cycle, now_ns, wall_ns)

    def _ask(self, cycle: Cycle, now_ns: int, wall_ns: int) -> None:
        if not cycle.runner.needs_chunk():
            return
        look = self._eyes.look(wall_ns)
        if not look.valid:
            if now_ns - cycle.seen_ns > BLIND_NS:
                self.fail(3, f"For {BLIND_NS / 1e9:g} s nothing recent came of {', '.join(look.lacking)}.")
            return
        cycle.seen_ns = now_ns
        ask = cycle.runner.ask()
        assert ask is not None
        more: dict[str, object] = {"prev_chunk_tail": ask.tail[: self.facts.chunk]} if ask.tail.size else {}
        content = request(
            look,
            cycle.recipe.instruction,
            adapter=cycle.recipe.adapter,
            contract=self.facts.contract,
            obs_stamp=(wall_ns - self._eyes.latency_ns) / 1e9,
            step=ask.step,
            inference_delay=ask.delay,
            **more,
        )
        self._inference.ask(Question(self._ids, ask.step, now_ns - self._eyes.latency_ns, content))

    def _take(self, reply: Reply, now_ns: int) -> None:
        """Play a chunk that came, unless what it answers to is over."""
        cycle = self._cycle
        if cycle is None or cycle.result is not None or reply.question.cycle != self._ids:
            return
        if reply.actions is None:
            cycle.runner.give_up()
            cycle.failures += 1
            if cycle.failures >= FAILURES_MAX:
                self.fail(2, reply.problem)
            return
        cycle.failures, cycle.chunks = 0, cycle.chunks + 1
        cycle.waited_ns.append(now_ns - reply.question.at_ns)
        try:
            if reply.actions.shape[1:] != (len(self.facts.action_names),):
                raise InputError(
                    f"Expected actions ({self.facts.chunk}, {len(self.facts.action_names)}), got {reply.actions.shape}."
                )
            played = cycle.runner.push(reply.actions, started_at=reply.question.step)
        except InputError as error:
            cycle.runner.give_up()
            self.fail(4, str(error))
            return
        if played:
            self._submit(cycle, reply.question, now_ns)

    def _submit(self, cycle: Cycle, question: Question, now_ns: int) -> None:
        """Hand what is ahead to the guard, each step due when its time has passed."""
        targets = self._rows.targets(cycle.runner.ahead())
        if not len(targets):
            return
        first = cycle.runner.step + 1 - cycle.position
        due = now_ns + ((first + np.arange(len(targets))) * self._period_ns).astype(np.int64)
        cycle.trace.ask(now_ns, int(due[0]), targets)
        answer = self.guard.submit(now_ns, targets, due_ns=due, observed_ns=question.at_ns)
        if not answer and answer.cause is not None and answer.cause in FATAL:
            self.fail(FATAL[answer.cause], answer.text)

    def _judge(self, command: Command) -> None:
        """Draw conclusions from what the guard did."""
        for event in command.events:
            self._note(event)
        cycle = self._cycle
        if cycle is None:
            return
        cycle.trace.send(command, self.guard.measured)
        if command.state in (State.STOPPING, State.STOPPED):
            self._stopped(command)
        if cycle.result is not None and (not self.guard.engaged or not (command.velocity != 0).any()):
            self._result, self._cycle = cycle.result, None
            self.ended.append(cycle)
            self._say("end", cycle=cycle.number, result=cycle.result.value, why=cycle.why, chunks=cycle.chunks)

    def _stopped(self, command: Command) -> None:
        """Tell a stop that the guard made as a fault."""
        if command.cause is Cause.CLIENT:
            self.fail(2, self._inference.problem or "The policy server does not answer.")
            return
        latch = self.guard.latch
        code = 3 if latch.cause == Cause.OBSERVATION.value else 5
        self.fail(code, f"The guard stopped the robot ({latch.cause or command.cause}).")

    def _note(self, event: Event) -> None:
        """Tell an event of the guard; often repeated ones once a second."""
        if event.cause in QUIET or event.now_ns - self._told.get(event.cause, -TOLD_NS) < TOLD_NS:
            return
        self._told[event.cause] = event.now_ns
        self._say("guard", cause=event.cause.value, text=event.text, count=self.guard.counts[event.cause])

    def _say(self, kind: str, **facts: Any) -> None:
        """Tell the audit; a robot whose doings cannot be written down is brought to rest."""
        try:
            self._tell(kind, facts)
        except StorageError as error:
            if self._code != 7:
                self._fault, self._code = str(error), 7
                self.finish(Result.ABORTED, str(error))


def first_facts(hello: Mapping[str, Any], recipes: Mapping[int, Recipe]) -> PolicyFacts:
    """Return the facts of the recipes' policies, which must be alike.

    Raises:
        InputError: the server lacks one, or they differ in what a robot notices.
    """
    found = [PolicyFacts.from_hello(hello, recipe.adapter) for recipe in recipes.values()]
    for other in found[1:]:
        if problem := found[0].differs(other):
            raise InputError(problem)
    return found[0]
