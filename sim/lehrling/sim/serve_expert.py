"""The scripted expert drives a served robot from outside, by its command topics, and a recorder by its services."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Protocol

from lehrling.sim.physics import STEP_NS
from lehrling.sim.record import AFTER_DONE_S
from lehrling.sim.serve import Drive, Server

LEAD_STEPS = 2
"""The expert decides this long before the robot acts, so that its command is there in time: 10 ms."""
CONNECT_S, RECORDER_S, RETRY_S, ANSWER_S = 5.0, 10.0, 1.0, 120.0


@dataclass(frozen=True)
class Answer:
    """What a recorder said."""

    ok: bool
    message: str


class Recorder(Protocol):
    """A recorder with the services start, save and save_failure."""

    name: str

    def ready(self, service: str) -> bool:
        """Whether the service is there."""

    def call(self, service: str) -> Callable[[], Answer | None]:
        """Call it; the function returned gives the answer once it has come."""


class Commander(Protocol):
    """The way of a command to the robot."""

    def command(self, topic: str, cdr: bytes) -> None:
        """Publish a command."""

    def connected(self) -> bool:
        """Whether the robot would hear it."""


@dataclass
class ExpertRun:
    """Episodes by the expert, a reset before each but the first.

    Attributes:
        episodes: how many; None goes on for ever.
        successes, recorded: of the `done` episodes, how many succeeded, and how many the recorder saved.
    """

    server: Server
    commander: Commander
    episodes: int | None = None
    recorder: Recorder | None = None
    clock_s: Callable[[], float] = time.monotonic
    done: int = 0
    successes: int = 0
    recorded: int = 0
    _patience_s: float = field(default=RECORDER_S, init=False)
    _refusal: str | None = field(default=None, init=False)

    def drive(self) -> Drive:
        """Run all episodes; advanced once per physics step."""
        yield from self._until(self.commander.connected, CONNECT_S)
        while self.episodes is None or self.done < self.episodes:
            if self.done:
                self.server.reset()
            recording = yield from self._start()
            succeeded = yield from self._demonstrate()
            if recording:
                self.recorded += yield from self._ask("save" if succeeded else "save_failure")
            self.done += 1
            self.successes += succeeded
            verdict = "succeeded" if succeeded else "failed"
            self.server.log(
                f"Episode {self.done}: seed {self.server.robot.seed}, {verdict}: {self.server.robot.station.instruction}"
            )

    def _demonstrate(self) -> Generator[None, None, bool]:
        robot, station = self.server.robot, self.server.robot.station
        expert, rest_ns = station.expert(), int(AFTER_DONE_S * 1e9)
        end_ns = robot.sim_ns + int(station.time_limit_s * 1e9)
        succeeded = False
        while robot.sim_ns < end_ns:
            if (station.physics.steps + LEAD_STEPS) % station.period_steps == 0:
                for topic, cdr in expert.act(robot.stamp_ns()):
                    self.commander.command(topic, cdr)
            if robot.success and not succeeded:
                succeeded, end_ns = True, robot.sim_ns + max(rest_ns, STEP_NS)
            yield
        return robot.success

    def _until(self, condition: Callable[[], bool], patience_s: float) -> Generator[None, None, bool]:
        deadline = self.clock_s() + patience_s
        while not condition():
            if self.clock_s() >= deadline:
                return False
            yield
        return True

    def _start(self) -> Generator[None, None, bool]:
        """Ask until the recorder begins: at first it may not have heard every topic yet."""
        deadline = self.clock_s() + self._patience_s
        while not (yield from self._ask("start")):
            again = self.clock_s() + RETRY_S
            if self.recorder is None or not self._patience_s or again >= deadline:
                return False
            yield from self._until(lambda at=again: self.clock_s() >= at, RETRY_S)  # type: ignore[misc]
        return True

    def _ask(self, service: str) -> Generator[None, None, bool]:
        recorder = self.recorder
        if recorder is None:
            return False
        if not (yield from self._until(lambda: recorder.ready(service), self._patience_s)):
            self._absent(f"{recorder.name}/{service}")
            return False
        poll = recorder.call(service)
        answers: list[Answer] = []

        def answered() -> bool:
            answers.extend([answer] if (answer := poll()) is not None else [])
            return bool(answers)

        if not (yield from self._until(answered, ANSWER_S)):
            self.server.log(
                f"Service {recorder.name}/{service} gave no answer within {ANSWER_S:g} s; going on without it."
            )
            return False
        if not answers[0].ok and answers[0].message != self._refusal:
            self._refusal = answers[0].message
            self.server.log(f"Service {recorder.name}/{service} refused: {self._refusal or 'no reason given'}")
        return answers[0].ok

    def _absent(self, service: str) -> None:
        """Tell of a recorder that is not there, and from now on look for it without waiting."""
        hint = "Start the recorder, in the same ROS domain, or correct --recorder." if self._patience_s else ""
        waited = f" after {self._patience_s:g} s" if self._patience_s else " yet"
        self.server.log(f"There is no service {service}{waited}; the expert goes on unrecorded. {hint}".rstrip())
        self._patience_s = 0.0
