"""Teleoperation in ROS 2: keyboard of any terminal, or a joystick, to the command topics of an embodiment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lehrling.collection.keyboard import Keyboard
from lehrling.collection.teleop import Teleop, operator_name
from lehrling.datasets.errors import DamageError, LehrlingError
from lehrling.deploy.guard_events import Command, State
from lehrling.deploy.ros_drive import Drive, control_loop, ros
from lehrling.deploy.station import guard_config, read_parameters, signals, station

REST_NS, UNHEARD_NS = 3_000_000_000, 3_000_000_000
PARAMETERS: dict[str, Any] = {
    "embodiment": "",
    "guard": "",
    "namespace": "",
    "joy_topic": "",
    "operator": "",
    "intervene": "",
}
"""Of the executable `teleop`; '' means: not given."""


class HeldKeyboard(Keyboard):
    """A keyboard whose held keys count each time they come."""

    def _held(self, key: str) -> bool:
        del key
        return False


@dataclass
class TeleopReport:
    """What came of driving.

    Attributes:
        published: messages by topic.
        counts: the guard's events by cause.
        latched: the stop that is latched at the end; empty if none is.
    """

    seconds: float
    published: dict[str, int]
    counts: dict[str, int]
    latched: str


Show = Callable[[Teleop, Command, list[str]], None]
"""Called in every tick with what there is to say."""


def run_teleop(teleop: Teleop, *, joy_topic: str, stopped: Callable[[], bool], show: Show) -> TeleopReport:
    """Drive until the operator quits or `stopped`; the robot comes to rest before the node goes.

    Raises:
        InputError: ROS 2 cannot be used here.
    """
    guard, begun = teleop.guard, time.monotonic()
    published: dict[str, int] = dict.fromkeys(teleop.told, 0)
    said: list[str] = []
    quit_ns = unheard_ns = 0
    with ros("lehrling_teleop") as (node, executor), HeldKeyboard() as keyboard:
        drive = Drive(node, teleop)
        if joy_topic:
            drive.listen_to_joy(joy_topic, lambda cdr, now_ns: said.append(_joy(teleop, cdr, now_ns)))

        def tick(now_ns: int) -> bool:
            nonlocal quit_ns, unheard_ns
            said.extend(teleop.key(key, now_ns) for key in keyboard.pressed())
            if stopped() and not teleop.quitting:
                said.append(teleop.end())
            command, outgoing = teleop.tick(now_ns, time.time_ns())
            drive.publish(outgoing)
            for message in outgoing:
                published[message.topic] += 1
            if outgoing and now_ns > unheard_ns and not any(drive.heard_by.values()):
                said.append(f"nobody listens to {', '.join(drive.heard_by)}")
                unheard_ns = now_ns + UNHEARD_NS
            texts = [*filter(None, said), *(event.text for event in command.events)]
            said.clear()
            show(teleop, command, texts)
            quit_ns = quit_ns or (now_ns if teleop.quitting else 0)
            return not quit_ns or (command.state is not State.WAITING and _still_moves(command, now_ns - quit_ns))

        control_loop(executor, drive, guard.config.period_ns, tick)
    counts = {cause.value: count for cause, count in sorted(guard.counts.items())}
    return TeleopReport(round(time.monotonic() - begun, 3), published, counts, guard.latch.cause)


def _still_moves(command: Command, since_ns: int) -> bool:
    return bool((command.velocity != 0).any()) and since_ns < REST_NS


def _joy(teleop: Teleop, cdr: bytes, now_ns: int) -> str:
    try:
        return teleop.joy(cdr, now_ns)
    except DamageError as error:
        return str(error)


def main(arguments: list[str] | None = None) -> int:
    """Drive as a node whose parameters a launch file gives; keys come from a terminal, which `ros2 run` has."""
    try:
        given = read_parameters("teleop", PARAMETERS, sys.argv[1:] if arguments is None else arguments)
        robot = station(given["embodiment"], given["namespace"] or None)
        config = guard_config(Path(given["guard"]) if given["guard"] else None, robot)
        driving = Teleop.of(robot, operator_name(given["operator"]), config, None, given["intervene"])
        try:
            with signals() as stopped:
                run_teleop(driving, joy_topic=given["joy_topic"], stopped=stopped, show=_say)
        finally:
            driving.guard.close()
    except LehrlingError as error:
        sys.stderr.write(f"teleop: {error}\n")
        return error.exit_code
    return 0


def _say(_teleop: Teleop, _command: Command, texts: list[str]) -> None:
    for text in texts:
        sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
