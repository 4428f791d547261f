"""What keys and joystick mean to a teleoperated robot: groups of axes, directions, controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lehrling.datasets.errors import InputError
from lehrling.deploy.guard_layout import Layout, Part

PAIRS: Mapping[str, tuple[str, str]] = {
    "x": ("w", "s"),
    "y": ("a", "d"),
    "z": ("r", "f"),
    "rz": ("j", "l"),
    "ry": ("i", "k"),
    "rx": ("u", "o"),
}
"""Keys of a coordinate, plus and minus; of a twist they are the velocities in the same order."""
TWIST = {"vx": "x", "vy": "y", "vz": "z", "wz": "rz", "wy": "ry", "wx": "rx"}
JOINT_KEYS, NEXT_JOINT, PREVIOUS_JOINT = ("w", "s"), "n", "p"
LEVELS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Speeds as shares of each axis's velocity limit."""
LEVEL = 2


class Word(StrEnum):
    """A control that is no motion."""

    FASTER = "faster"
    SLOWER = "slower"
    GROUP = "next group"
    NEXT = "next joint"
    PREVIOUS = "previous joint"
    CLOSE = "close gripper"
    OPEN = "open gripper"
    HALT = "halt"
    STOP = "protective stop request"
    RESET = "reset"
    QUIT = "quit"


WORDS: Mapping[str, Word] = {
    "+": Word.FASTER,
    "=": Word.FASTER,
    "-": Word.SLOWER,
    "\t": Word.GROUP,
    NEXT_JOINT: Word.NEXT,
    PREVIOUS_JOINT: Word.PREVIOUS,
    "g": Word.CLOSE,
    "h": Word.OPEN,
    " ": Word.HALT,
    "x": Word.STOP,
    "R": Word.RESET,
    "q": Word.QUIT,
    "\x03": Word.QUIT,
}
KEYS_HELP = (
    "hold w s a d r f to move · u o i k j l to turn · n p choose a joint · g h close, open · + - speed · tab next group · "
    "space halt · x stop · R reset · q quit"
)


@dataclass(frozen=True)
class Group:
    """Axes that the same keys move.

    Attributes:
        name: of the stream, or of the group of joints.
        keys: key -> axis and direction; of joints the keys move the one that is chosen.
        joints: the axes to choose from; empty unless the group is one of joints.
    """

    name: str
    keys: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    joints: tuple[int, ...] = ()


def groups_of(layout: Layout) -> tuple[Group, ...]:
    """Return the groups of a layout's axes that can be moved by keys.

    Raises:
        InputError: there are none.
    """
    found: list[Group] = []
    for part in layout.parts:
        if part.form in ("pose", "twist"):
            found.append(Group(part.stream.name, _coordinate_keys(part)))
        elif part.form == "joints":
            found += _joint_groups(layout, part)
    if not found:
        raise InputError(f"Expected joints, a pose or a twist to drive in {layout.embodiment.name!r}, found none.")
    return tuple(found)


def _coordinate_keys(part: Part) -> dict[str, tuple[int, int]]:
    keys: dict[str, tuple[int, int]] = {}
    for index, name in enumerate(part.names):
        element = name.removeprefix(f"{part.stream.name}_")
        pair = PAIRS.get(TWIST.get(element, element))
        if pair is not None:
            keys[pair[0]], keys[pair[1]] = (part.start + index, 1), (part.start + index, -1)
    return keys


def _joint_groups(layout: Layout, part: Part) -> list[Group]:
    places = {name: part.start + index for index, name in enumerate(part.names)}
    groups = layout.embodiment.contract.groups
    named = [
        Group(name, joints=tuple(places[joint] for joint in members if joint in places))
        for name, members in groups.items()
    ]
    grouped = {place for group in named for place in group.joints}
    rest = tuple(place for place in places.values() if place not in grouped)
    return [group for group in [*named, Group(part.stream.name, joints=rest)] if group.joints]


@dataclass(frozen=True)
class JoyMap:
    """Which axes and buttons of a joystick mean what; the defaults fit a gamepad as joy_node gives it.

    Attributes:
        sticks: coordinate -> axis of the joystick and direction.
        deadman: button that must be held for the robot to move.
        dead_zone: deflection that counts as none.
    """

    sticks: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {"x": (1, 1), "y": (0, 1), "z": (4, 1), "rz": (3, 1)}
    )
    deadman: int = 4
    close: int = 0
    open: int = 1
    stop: int = 8
    next_group: int = 7
    dead_zone: float = 0.1

    def held(self, buttons: Sequence[int], button: int) -> bool:
        """Whether a button is held down."""
        return button < len(buttons) and bool(buttons[button])

    def deflections(self, axes: Sequence[float]) -> dict[str, float]:
        """Return the deflection, -1 to 1, of each coordinate that is moved."""
        found = {}
        for coordinate, (axis, direction) in self.sticks.items():
            value = float(axes[axis]) * direction if axis < len(axes) else 0.0
            if self.dead_zone < abs(value) <= 1.01:
                found[coordinate] = max(-1.0, min(1.0, value))
        return found
