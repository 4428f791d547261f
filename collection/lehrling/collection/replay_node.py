"""Replay in ROS 2: an episode's actions through the guard, other streams as they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lehrling.collection.replay import Phase, Replay, plan_replay, station_of
from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.deploy.guard_events import Command
from lehrling.deploy.guard_link import GuardLink
from lehrling.deploy.ros_drive import Drive, control_loop, ros
from lehrling.deploy.station import guard_config, read_parameters, signals

CONNECT_S, REST_S = 10.0, 3.0
PARAMETERS: dict[str, Any] = {
    "dataset": "",
    "episode": "",
    "embodiment": "",
    "guard": "",
    "namespace": "",
    "joy_topic": "",
    "deadman": 4,
    "speed": 1.0,
    "all_streams": False,
}
"""Of the executable `replay`; '' means: not given."""


@dataclass(frozen=True)
class ReplayReport:
    """What came of a replay.

    Attributes:
        nominal_s, seconds: how long it should have taken, and took.
        targets, reached: commands of the episode, and how many of them were reached.
        trouble: why it ended early; empty if it did not.
        published: messages by topic.
        counts: the guard's events by cause.
    """

    nominal_s: float
    seconds: float
    targets: int
    reached: int
    complete: bool
    trouble: str
    published: dict[str, int]
    counts: dict[str, int]


class Deadman:
    """A joystick's button that must be held."""

    def __init__(self, button: int, timeout_ns: int = 250_000_000) -> None:
        self._button, self._timeout_ns, self._until_ns = button, timeout_ns, 0

    def take(self, cdr: bytes, now_ns: int) -> None:
        """Take a joystick's message."""
        buttons = messages.decode(cdr, "sensor_msgs/msg/Joy").buttons
        held = self._button < len(buttons) and bool(buttons[self._button])
        self._until_ns = now_ns + self._timeout_ns if held else 0

    def held(self, now_ns: int) -> bool:
        """Whether it is held."""
        return now_ns < self._until_ns


def run_replay(
    replay: Replay,
    *,
    stopped: Callable[[], bool],
    deadman: tuple[str, int] | None = None,
    show: Callable[[Replay, Command], None] = lambda *_: None,
) -> ReplayReport:
    """Replay until done, or until `stopped`; the robot comes to rest before the node goes.

    Args:
        replay: what to replay.
        stopped: whether to stop before the end.
        deadman: topic of a joystick and the button on it that must be held; without one, running is enabling.
        show: called in every tick.

    Raises:
        InputError: ROS 2 cannot be used here, nobody hears the commands, or the robot is not where the episode begins.
    """
    link, guard = replay.link, replay.link.guard
    others = {link.full(message.topic): message.type for message in replay.others}
    published: dict[str, int] = dict.fromkeys({**link.told, **others}, 0)
    with ros("lehrling_replay") as (node, executor):
        drive = Drive(node, link, others)
        switch = Deadman(deadman[1]) if deadman else None
        if deadman and switch:
            drive.listen_to_joy(deadman[0], switch.take)
        _connect(drive, executor, stopped)
        ended_s = 0.0

        def tick(now_ns: int) -> bool:
            nonlocal ended_s
            ending = stopped()
            enabled = not ending and (switch is None or switch.held(now_ns))
            if ending:
                replay.halt(now_ns)
            if replay.phase is not Phase.WAITING or switch is None or enabled:
                command, outgoing = replay.tick(now_ns, time.time_ns(), enabled=enabled)
                drive.publish(outgoing)
                for message in outgoing:
                    published[message.topic] += 1
                show(replay, command)
            if ending or replay.phase is Phase.DONE:
                ended_s = ended_s or time.monotonic()
                return guard.engaged and bool(guard.velocity.any()) and time.monotonic() - ended_s < REST_S
            return True

        control_loop(executor, drive, guard.config.period_ns, tick)
    return ReplayReport(
        round(replay.track.seconds / replay.speed, 3),
        round(replay.seconds, 3),
        len(replay.track.targets),
        replay.reached,
        replay.complete,
        replay.trouble,
        published,
        {cause.value: count for cause, count in sorted(guard.counts.items())},
    )


def _connect(drive: Drive, executor: object, stopped: Callable[[], bool]) -> None:
    """Wait until every command topic is heard."""
    until = time.monotonic() + CONNECT_S
    while not all(drive.heard_by.values()):
        if stopped():
            return
        if time.monotonic() > until:
            deaf = ", ".join(topic for topic, count in drive.heard_by.items() if not count)
            raise InputError(
                f"Nobody listens to {deaf}; start the robot's driver, in the same ROS domain, or correct the namespace."
            )
        executor.spin_once(timeout_sec=0.05)  # type: ignore[attr-defined]
        drive.look()


def main(arguments: list[str] | None = None) -> int:
    """Replay as a node whose parameters a launch file gives; 1 where it ended before all commands were reached."""
    try:
        given = read_parameters("replay", PARAMETERS, sys.argv[1:] if arguments is None else arguments)
        report = _replay(given)
    except LehrlingError as error:
        sys.stderr.write(f"replay: {error}\n")
        return error.exit_code
    sys.stderr.write(f"replay: {report.reached} of {report.targets} commands reached. {report.trouble}\n")
    return 0 if report.complete else 1


def _replay(given: dict[str, Any]) -> ReplayReport:
    recorded = Dataset.open(given["dataset"]).episode(given["episode"])
    wanted = load_embodiment(given["embodiment"]) if given["embodiment"] else None
    robot = station_of(recorded, wanted, given["namespace"] or None)
    link = GuardLink.of(robot, guard_config(Path(given["guard"]) if given["guard"] else None, robot), streams=None)
    try:
        plan = plan_replay(recorded, link.layout, all_streams=given["all_streams"])
        held = (given["joy_topic"], given["deadman"]) if given["joy_topic"] else None
        with signals() as stopped:
            return run_replay(Replay(link, plan.track, given["speed"], plan.messages), stopped=stopped, deadman=held)
    finally:
        link.guard.close()


if __name__ == "__main__":
    sys.exit(main())
