"""A policy drives a robot: recipes, cycles, faults, and rest after each of them. No ROS, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import numpy as np

from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError, LehrlingError, StorageError
from lehrling.deploy.action_rows import ActionRows
from lehrling.deploy.cycle import Recipe
from lehrling.deploy.execution import Asking, Execution, Means
from lehrling.deploy.guard_events import Cause, Command, Event, State
from lehrling.deploy.guard_limits import GuardConfig
from lehrling.deploy.guard_link import GuardLink, Outgoing
from lehrling.deploy.guard_watch import Renewed
from lehrling.deploy.intervention import Intervention
from lehrling.deploy.observer import Observer
from lehrling.deploy.policy_facts import PolicyFacts
from lehrling.deploy.runtime import Axis, Phase, Result, RuntimeState

MS = 1_000_000
ENABLED_NS, TOLD_NS, AUDIT_NS = 200 * MS, 1_000 * MS, 5_000 * MS
PAUSING = (Cause.DEADMAN, Cause.OBSERVATION, Cause.OVERRIDE, Cause.NOT_FINITE)
"""While the guard holds for one of these, the steps of a chunk do not pass."""
QUIET = (Cause.SCALED, Cause.ACTION, Cause.LATE, Cause.IDLE, Cause.RESYNC, Cause.DEADMAN)
"""Part of driving by chunks: counted, not told one by one."""
STARTER, SWITCH = "starter", "switch"
"""Who permits to move: whoever starts cycles, and an enabling switch where there is one."""
Tell = Callable[[str, Mapping[str, Any]], None]
"""Told what happens, for the audit; raises StorageError where it cannot be written."""


class PolicyDrive:
    """Executes recipes; one thread calls `hear` and `tick`, the latter at the guard's rate.

    Attributes:
        link: to the guard, the only way to the robot.
        cycle: that executes or comes to rest, None between cycles.
        ended: the cycles that have ended, the newest last, until they are taken.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        facts: PolicyFacts,
        inference: Asking,
        config: GuardConfig,
        tell: Tell,
        settled: Callable[[], bool] = lambda: True,
        interventions: str = "",
    ) -> None:
        """Lay out guard and observations for the first policy; those of other recipes must be like it.

        Args:
            embodiment: the robot.
            facts: of the first policy.
            inference: where questions go.
            config: of the guard.
            tell: the audit.
            settled: whether all that was told is written: before that a cycle asks for nothing, so that nothing moves. Raises
                StorageError where it could not be.
            interventions: prefix of the topics of an operator's device; empty for none.

        Raises:
            ContractError: the policy is of another robot.
            InputError: the guard cannot command what the policy gives.
        """
        view = facts.layout(embodiment)
        streams = list(dict.fromkeys(part.stream for part in view.action))
        self.link = GuardLink.of(embodiment, config, streams=streams, cameras=facts.view.cameras)
        self.guard, self.facts = self.link.guard, facts
        try:
            eyes, hands = Observer(embodiment, facts.view), Intervention(self.link, interventions)
            rows, ids = ActionRows(view, self.link.layout), count(1)
        except BaseException:
            self.guard.close()
            raise
        self._means = Means(self.link, rows, eyes, hands, inference, facts, self._audited, self.fail, lambda: next(ids))
        self._tell, self._settled = tell, settled
        self._recipe: Recipe | None = None
        self._model_hash = ""
        self._known: Mapping[str, Any] | None = None
        self.cycle: Execution | None = None
        self._number = 0
        self._result, self._fault, self._code = Result.NONE, "", 0
        self._permits = {STARTER: Renewed(ENABLED_NS)}
        self._before_ns = self._settled_ns = 0
        self._speed = 1.0
        self._command: Command | None = None
        self._told: dict[Cause, int] = {}
        self.ended: list[Execution] = []

    @property
    def heard(self) -> dict[str, str]:
        """Topics to subscribe to -> message type."""
        return {**self._means.hands.heard, **self._means.eyes.heard, **self.link.heard}

    @property
    def told(self) -> dict[str, str]:
        """Topics to publish on -> message type."""
        return self.link.told

    def hear(self, topic: str, cdr: bytes, now_ns: int, wall_ns: int) -> None:
        """Take a robot's message, or one of the operator's device."""
        if self._means.hands.hear(topic, cdr, now_ns):
            return
        if topic in self.link.heard:
            self.link.hear(topic, cdr, now_ns, wall_ns)
        self._means.eyes.hear(topic, cdr, wall_ns)

    def load(self, recipe: Recipe) -> None:
        """Make a recipe the next one.

        Raises:
            InputError: a cycle executes.
        """
        if self.cycle is not None:
            raise InputError(f"Cycle {self.cycle.number} executes; load a recipe when it has ended.")
        self._recipe, self._model_hash, self._known = recipe, "", None
        self._say("recipe", number=recipe.number, name=recipe.name, adapter=recipe.adapter)

    def start(self, number: int, now_ns: int) -> None:
        """Begin a cycle.

        Raises:
            InputError: it cannot begin now; the message says why.
        """
        phase = self.phase
        if phase is not Phase.READY or self._recipe is None:
            raise InputError(f"Expected a robot that is ready, but it is {phase.value}. {self._fault}".strip())
        if not self._means.rows.hold(self.link.latest):
            raise InputError("No observation tells yet where the robot is.")
        self._number = number
        self.cycle = Execution(number, self._recipe, self._means, now_ns)
        self._say("start", cycle=number, recipe=self._recipe.number, model=self._model_hash)
        self.guard.accept(self.link.layout.claim())

    def finish(self, result: Result, why: str) -> None:
        """End the cycle that executes; the robot comes to rest along its path."""
        if self.cycle is not None and self.cycle.result is None:
            self.cycle.result, self.cycle.why = result, why
            self.guard.drop()

    def stop(self, cause: str) -> None:
        """Bring the robot to rest."""
        self.finish(Result.ABORTED, cause)

    def protective_stop(self, now_ns: int, cause: str) -> None:
        """Request a protective stop, which stays latched."""
        self.guard.stop(now_ns, cause)

    def reset(self, operator: str) -> None:
        """End a fault, if its cause is gone; a latched stop stays, it is for an operator at the robot."""
        if self.cycle is None and not self.guard.latch.latched:
            self._fault, self._code = "", 0
            self._say("reset", by=operator)

    def set_speed(self, share: float, now_ns: int) -> None:
        """Set the speed override, 0 to 1."""
        if self.guard.override(now_ns, 100 * share):
            self._speed = share

    def require(self, who: str) -> None:
        """Have a further permission needed."""
        self._permits[who] = Renewed(ENABLED_NS)

    def set_enabled(self, enabled: bool, now_ns: int, who: str = STARTER) -> None:
        """Renew or withdraw a permission to move; the robot moves while all that are needed are fresh."""
        if not enabled:
            self._permits[who].withdraw()
            self.guard.release()
            return
        self._permits[who].renew(now_ns)
        if self._permitted(now_ns):
            self.guard.enable(min(permit.at_ns or 0 for permit in self._permits.values()))

    def _permitted(self, now_ns: int) -> bool:
        return all(permit.fresh(now_ns) for permit in self._permits.values())

    def fail(self, code: int, text: str) -> None:
        """Note a fault; a cycle that executes is aborted."""
        if not self._code:
            self._fault, self._code = text, code
            self.finish(Result.ABORTED, text)
            self._say("fault", code=code, text=text)

    @property
    def phase(self) -> Phase:
        """What is being done."""
        if self.cycle is not None:
            return Phase.EXECUTING if self.cycle.result is None else Phase.STOPPING
        if self._code or self.guard.latch.latched:
            return Phase.FAULT
        if not np.isfinite(self.guard.measured[self.guard.axes.measured]).all():
            return Phase.OFFLINE
        if self._recipe is None:
            return Phase.IDLE
        inference = self._means.inference
        return Phase.READY if inference.connected and self._known is inference.hello else Phase.LOADING

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
        replies = self._means.inference.take()
        self.know_policy()
        self._keep_audited(now_ns)
        if self._means.inference.connected:
            self.guard.client(now_ns)
        if self.cycle is not None:
            for reply in replies:
                self.cycle.take(reply, now_ns)
            self._drive(self.cycle, now_ns, wall_ns)
        command, outgoing = self.link.step(now_ns, wall_ns)
        self._command, self._before_ns = command, now_ns
        self._judge(command)
        return command, outgoing

    def know_policy(self) -> None:
        """Find the recipe's policy in what the server tells, each time that one is there anew."""
        recipe, inference = self._recipe, self._means.inference
        hello = inference.hello
        if recipe is None or self._known is hello or self._code or not inference.connected:
            return
        try:
            facts = PolicyFacts.from_hello(hello, recipe.adapter)
            if problem := self.facts.differs(facts):
                raise InputError(problem)
            if recipe.model_hash not in ("", facts.model_hash):
                raise InputError(
                    f"Recipe {recipe.number} is for the model {recipe.model_hash[:12]}, the server has "
                    f"{facts.model_hash[:12]} as {recipe.adapter!r}."
                )
            if self.cycle is not None and facts.model_hash != self._model_hash:
                raise InputError(
                    f"The policy server came back in the middle of cycle {self.cycle.number} with another model, "
                    f"{facts.model_hash[:12]} in place of {self._model_hash[:12]}."
                )
        except LehrlingError as error:
            self.fail(9, str(error))
            return
        self._known = hello
        if facts.model_hash == self._model_hash:
            return
        self._model_hash = facts.model_hash
        self._say("adapter", name=recipe.adapter, model=facts.model_hash, statistics=facts.statistics_hash)

    def _drive(self, cycle: Execution, now_ns: int, wall_ns: int) -> None:
        """Let the cycle do what is due."""
        if cycle.result is not None:
            return
        led, command = cycle.by_hand, self._command
        held = command is not None and command.cause in PAUSING
        passed = (now_ns - self._before_ns) * self._speed if self._before_ns and not held else 0.0
        cycle.tick(now_ns, wall_ns, passed, permitted=self._permitted(now_ns))
        if cycle.by_hand != led:
            self._say("intervention", cycle=cycle.number, begins=cycle.by_hand)
        if cycle.result is not None:
            self.guard.drop()

    def _judge(self, command: Command) -> None:
        """Draw conclusions from what the guard did."""
        for event in command.events:
            self._note(event)
        cycle = self.cycle
        if cycle is None:
            return
        cycle.trace.send(command, self.guard.measured)
        if command.state in (State.STOPPING, State.STOPPED):
            self._stopped(command)
        if cycle.result is not None and (not self.guard.engaged or not (command.velocity != 0).any()):
            self._result, self.cycle = cycle.result, None
            self.ended.append(cycle)
            counts = {"chunks": cycle.chunks, "interventions": cycle.interventions}
            self._say("end", cycle=cycle.number, result=cycle.result.value, why=cycle.why, **counts)

    def _stopped(self, command: Command) -> None:
        """Tell a stop that the guard made as a fault."""
        if command.cause is Cause.CLIENT:
            self.fail(2, self._means.inference.problem or "The policy server does not answer.")
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

    def _audited(self) -> bool:
        """Whether all that was told is written; a robot whose doings cannot be written down is brought to rest."""
        try:
            return self._settled()
        except StorageError as error:
            self._unaudited(error)
            return False

    def _keep_audited(self, now_ns: int) -> None:
        """End a cycle whose records wait for too long, as for a disk that hangs."""
        if self._audited() or self.cycle is None:
            self._settled_ns = now_ns
        elif now_ns - self._settled_ns > AUDIT_NS:
            self._unaudited(StorageError(f"The audit is more than {AUDIT_NS / 1e9:g} s behind; look at its disk."))

    def _say(self, kind: str, **facts: Any) -> None:
        """Tell the audit."""
        try:
            self._tell(kind, facts)
        except StorageError as error:
            self._unaudited(error)

    def _unaudited(self, error: StorageError) -> None:
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
