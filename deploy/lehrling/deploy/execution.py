"""One cycle at work: it looks, asks for chunks, and hands what is ahead to the guard, or lets an operator lead."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError
from lehrling.deploy.action_rows import ActionRows
from lehrling.deploy.cycle import Recipe, Trace
from lehrling.deploy.guard_events import Cause
from lehrling.deploy.guard_link import GuardLink
from lehrling.deploy.inference import ANSWER_S, Question, Reply
from lehrling.deploy.intervention import Intervention
from lehrling.deploy.observer import Observer, request
from lehrling.deploy.policy_facts import PolicyFacts
from lehrling.deploy.runtime import Result

FAILURES_MAX, BLIND_NS = 3, 2_000_000_000
"""Questions in a row that come to nothing, and time without a whole observation, after which a cycle is over."""
FROZEN_FRAMES, FROZEN = 5, {"m": 0.03, "rad": 0.1}
"""A camera that sends so many equal frames while the robot moves so far shows the past."""
FATAL: Mapping[Cause, int] = {
    Cause.FIRST_MOVE: 4,
    Cause.CONTRACT: 9,
    Cause.NOT_FINITE: 4,
    Cause.SHAPE: 4,
    Cause.WORKSPACE: 4,
    Cause.COLLISION: 4,
    Cause.CLAMPS: 4,
}
"""Refusals of the guard that end a cycle -> the fault's code."""


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


@dataclass(frozen=True)
class Means:
    """What a cycle works with.

    Attributes:
        settled: whether all that was told to the audit is written.
        fail: told a fault's code and text.
        ids: gives every plan a number of its own, so that answers to another are known.
    """

    link: GuardLink
    rows: ActionRows
    eyes: Observer
    hands: Intervention
    inference: Asking
    facts: PolicyFacts
    settled: Callable[[], bool]
    fail: Callable[[int, str], None]
    ids: Callable[[], int]


@dataclass
class Execution:
    """A recipe being executed.

    Attributes:
        position: step, with the part of it that has passed.
        by_hand: whether an operator leads.
        chunks, interventions: how many there were.
        waited_ns: from observation to chunk.
        result, why: once it has ended; the robot may still come to rest.
    """

    number: int
    recipe: Recipe
    means: Means
    began_ns: int
    trace: Trace = field(init=False)
    position: float = 0.0
    by_hand: bool = False
    chunks: int = 0
    interventions: int = 0
    waited_ns: list[int] = field(default_factory=list)
    result: Result | None = None
    why: str = ""

    def __post_init__(self) -> None:
        means = self.means
        self._period_ns = 1e9 / means.facts.view.rate_hz
        self.trace = Trace(means.link.layout.names, round(self._period_ns))
        self._runner = self.recipe.runner(means.facts.chunk)
        self._seen_ns, self._failures, self._id = self.began_ns, 0, means.ids()
        self._far = means.link.guard.axes.lengths(lambda unit: FROZEN.get(unit, np.inf))
        self._shown: dict[str, NDArray[np.float64]] = {}
        self._waits_ns: int | None = None
        self._positions, self._behind, self._asked_behind = deque([(self.began_ns, 0.0)]), 0.0, 0.0

    def tick(self, now_ns: int, wall_ns: int, passed_ns: float, *, permitted: bool) -> None:
        """Let time pass and do what is due.

        Args:
            now_ns: monotonic time.
            wall_ns: wall-clock time.
            passed_ns: time that has passed for the path: less than the clock's where the robot is slowed down or held.
            permitted: whether the robot may move.
        """
        if now_ns - self.began_ns > self.recipe.limit_s * 1e9:
            self.result, self.why = Result.TIMEOUT, f"The cycle took more than {self.recipe.limit_s:g} s."
            return
        if camera := self._frozen():
            self.means.fail(3, f"Camera {camera!r} sends one and the same picture while the robot moves.")
            return
        if self.means.hands.active(now_ns):
            self._follow(now_ns)
            return
        if self.by_hand:
            self._go_on(now_ns)
        if self._waits_ns is not None and now_ns - self._waits_ns > ANSWER_S * 1e9:
            self.means.fail(2, f"The policy server has not answered within {ANSWER_S:g} s.")
            return
        runner = self._runner
        self.position = min(self.position + passed_ns / self._period_ns, float(max(runner.end, runner.step)))
        runner.advance(int(self.position))
        self._remember(now_ns)
        if permitted and self.means.inference.connected:
            self._ask(now_ns, wall_ns)

    def _frozen(self) -> str:
        """Return a camera whose picture stands still under new stamps although the robot has moved, or an empty string."""
        here = self.means.link.guard.measured
        for camera, same in self.means.eyes.same.items():
            if same == 0 or camera not in self._shown:
                self._shown[camera] = here
            elif same >= FROZEN_FRAMES and (np.abs(here - self._shown[camera]) > self._far).any():
                return camera
        return ""

    def _follow(self, now_ns: int) -> None:
        """Let the operator lead; the permission to move is needed as ever."""
        if not self.by_hand:
            self.by_hand, self.interventions = True, self.interventions + 1
            self.means.link.guard.drop()
        self._seen_ns = now_ns
        self.means.hands.lead(now_ns)

    def _go_on(self, now_ns: int) -> None:
        """Let the policy look anew, from where the operator let go; answers from before are of no use."""
        self.by_hand = False
        self.means.link.guard.drop()
        self._runner.reset()
        self.position, self._id, self._seen_ns, self._waits_ns = 0.0, self.means.ids(), now_ns, None
        self._positions, self._behind = deque([(now_ns, 0.0)]), 0.0

    def _remember(self, now_ns: int) -> None:
        """Keep the position since what is seen now was: it stands still while the robot is held or waits."""
        self._positions.append((now_ns, self.position))
        while len(self._positions) > 1 and self._positions[1][0] <= now_ns - self.means.eyes.latency_ns:
            self._positions.popleft()

    def _ask(self, now_ns: int, wall_ns: int) -> None:
        means = self.means
        if not self._runner.needs_chunk() or (not self.chunks and not means.settled()):
            return
        look = means.eyes.look(wall_ns)
        if not look.valid:
            if now_ns - self._seen_ns > BLIND_NS:
                means.fail(3, f"For {BLIND_NS / 1e9:g} s nothing recent came of {', '.join(look.lacking)}.")
            return
        self._seen_ns = now_ns
        ask = self._runner.ask()
        assert ask is not None
        self._asked_behind = self.position - self._positions[0][1]
        more: dict[str, object] = {"prev_chunk_tail": ask.tail[: means.facts.chunk]} if ask.tail.size else {}
        content = request(
            look,
            self.recipe.instruction,
            adapter=self.recipe.adapter,
            contract=means.facts.contract,
            obs_stamp=(wall_ns - means.eyes.latency_ns) / 1e9,
            step=ask.step,
            inference_delay=ask.delay + math.ceil(self._asked_behind),
            **more,
        )
        self._waits_ns = now_ns
        means.inference.ask(Question(self._id, ask.step, now_ns - means.eyes.latency_ns, content))

    def take(self, reply: Reply, now_ns: int) -> None:
        """Play a chunk that came, unless what it answers to is over."""
        if self.result is not None or self.by_hand or reply.question.cycle != self._id:
            return
        self._waits_ns = None
        if reply.actions is None:
            self._runner.give_up()
            self._failures += 1
            if self._failures >= FAILURES_MAX:
                self.means.fail(2, reply.problem)
            return
        self._failures, self.chunks = 0, self.chunks + 1
        self.waited_ns.append(now_ns - reply.question.at_ns)
        names = self.means.facts.action_names
        try:
            if reply.actions.shape[1:] != (len(names),):
                raise InputError(
                    f"Expected actions ({self.means.facts.chunk}, {len(names)}), got {reply.actions.shape}."
                )
            played = self._runner.push(reply.actions, started_at=reply.question.step)
        except InputError as error:
            self._runner.give_up()
            self.means.fail(4, str(error))
            return
        if played:
            self._behind = self._asked_behind
            self._submit(reply.question, now_ns)

    def _submit(self, question: Question, now_ns: int) -> None:
        """Hand what is ahead to the guard, each step due when its time has passed; the first one's began with the observation.

        A robot that moves is past what is due within a period: the observation is older than that. Led there it would turn back.
        """
        ahead = self._runner.ahead()
        first = self._runner.step + 1 - self.position - self._behind
        if self.means.link.guard.engaged and first < 1 and len(ahead) > 1:
            past = min(math.ceil(1 - first), len(ahead) - 1)
            ahead, first = ahead[past:], max(first + past, 1.0)
        targets = self.means.rows.targets(ahead)
        if not len(targets):
            return
        due = now_ns + ((first + np.arange(len(targets))) * self._period_ns).astype(np.int64)
        self.trace.ask(now_ns, int(due[0]), targets)
        answer = self.means.link.guard.submit(now_ns, targets, due_ns=due, observed_ns=question.at_ns)
        if not answer and answer.cause is not None and answer.cause in FATAL:
            self.means.fail(FATAL[answer.cause], answer.text)
