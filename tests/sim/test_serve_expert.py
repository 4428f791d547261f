"""The expert drives a served robot by messages alone, and a recorder by its services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from sim_serving import Served, served

from lehrling.sim.serve_expert import Answer, ExpertRun


@dataclass
class Wire:
    """Commands that reach the robot one step later."""

    robot: Served
    topics: list[str] = field(default_factory=list)

    def command(self, topic: str, cdr: bytes) -> None:
        self.topics.append(topic)
        self.robot.server.post(lambda: self.robot.server.hear(topic, cdr))

    def connected(self) -> bool:
        return True


@dataclass
class Notebook:
    """A recorder that is there from some time on, and answers each call at the second look."""

    clock: Callable[[], float]
    name: str = "/recorder"
    there_s: float = 0.0
    refuse: str = ""
    calls: list[str] = field(default_factory=list)

    def ready(self, service: str) -> bool:
        assert service in ("start", "save", "save_failure")
        return self.clock() >= self.there_s

    def call(self, service: str) -> Callable[[], Answer | None]:
        self.calls.append(service)
        looks = iter([None, Answer(service != self.refuse, "disk full" if service == self.refuse else "")])
        return lambda: next(looks)


def test_the_expert_succeeds_over_messages_and_resets_between_episodes() -> None:
    with served(task="kitting") as robot:
        run = ExpertRun(robot.server, Wire(robot), episodes=4)
        robot.server.run(run.drive())
        assert (run.done, run.successes, run.recorded) == (4, 4, 0)
        assert [text for text in robot.sent.texts("/task_success") if text] == [True] * 4
        assert len(set(robot.sent.texts("/task_instruction"))) >= 3
        assert [line.split(":")[1].strip() for line in robot.log] == [f"seed {k}, succeeded" for k in range(4)]


def test_a_recorder_is_started_before_and_saved_after_each_episode() -> None:
    with served(task="sorting", robot="iiwa") as robot:
        book = Notebook(lambda: robot.clock.now_ns / 1e9)
        run = ExpertRun(robot.server, Wire(robot), episodes=2, recorder=book, clock_s=book.clock)
        robot.server.run(run.drive())
        assert book.calls == ["start", "save", "start", "save"]
        assert (run.successes, run.recorded) == (2, 2)


def test_a_failed_episode_is_saved_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as robot:
        monkeypatch.setattr(type(robot.robot.station), "time_limit_s", 0.5)
        book = Notebook(lambda: robot.clock.now_ns / 1e9)
        run = ExpertRun(robot.server, Wire(robot), episodes=1, recorder=book, clock_s=book.clock)
        robot.server.run(run.drive())
        assert book.calls == ["start", "save_failure"]
        assert (run.done, run.successes, run.recorded) == (1, 0, 1)


def test_without_a_recorder_the_expert_says_so_after_ten_seconds_and_goes_on() -> None:
    with served() as robot:
        book = Notebook(lambda: robot.clock.now_ns / 1e9, there_s=1e9)
        begun = robot.robot.sim_ns
        run = ExpertRun(robot.server, Wire(robot), episodes=2, recorder=book, clock_s=book.clock)
        robot.server.run(run.drive())
        assert (run.done, run.successes, run.recorded) == (2, 2, 0)
        told = [line for line in robot.log if "/recorder/start" in line]
        assert "There is no service /recorder/start after 10 s" in told[0]
        assert len(told) == 2
        assert robot.robot.sim_ns - begun < 10e9 + 2 * 9e9
        assert book.calls == []


def test_a_recorder_that_comes_late_is_used_from_then_on() -> None:
    with served() as robot:
        begun = robot.clock.now_ns / 1e9
        book = Notebook(lambda: robot.clock.now_ns / 1e9, there_s=begun + 11)
        run = ExpertRun(robot.server, Wire(robot), episodes=2, recorder=book, clock_s=book.clock)
        robot.server.run(run.drive())
        assert book.calls == ["start", "save"]
        assert run.recorded == 1


def test_a_refusal_is_told_in_the_recorders_words_and_the_episode_is_not_saved() -> None:
    with served() as robot:
        book = Notebook(lambda: robot.clock.now_ns / 1e9, refuse="start")
        run = ExpertRun(robot.server, Wire(robot), episodes=1, recorder=book, clock_s=book.clock)
        robot.server.run(run.drive())
        assert set(book.calls) == {"start"}
        assert len(book.calls) > 1, "a recorder that has not heard every topic yet may be ready a second later"
        assert sum("refused: disk full" in line for line in robot.log) == 1
