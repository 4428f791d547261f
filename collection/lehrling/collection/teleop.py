"""Teleoperation without ROS: keys and joystick become targets, the guard makes commands of them.

A key moves its axes while it is held, as far as a terminal tells: for 0.15 s after each time it comes, so that one press is
a nudge, and the robot stops soon after the last. Only then the guard is enabled; with a joystick, only while its deadman
button is held. With a prefix the commands are for a policy node that listens there and lets the operator lead: nothing is
sent while nothing is asked for, so that the policy goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lehrling.collection.teleop_device import device_config, leash
from lehrling.collection.teleop_keys import LEVEL, LEVELS, PAIRS, WORDS, JoyMap, Word, groups_of
from lehrling.datasets import messages
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError
from lehrling.deploy.guard_events import Command
from lehrling.deploy.guard_limits import GuardConfig
from lehrling.deploy.guard_link import GuardLink, Outgoing

FloatArray = NDArray[np.float64]
HOLD_NS, JOY_NS, PULSE_NS = 150_000_000, 250_000_000, 600_000_000
AHEAD, INTERVAL_NS, QUEUED_S = 8, 50_000_000, 0.4
RETRY_NS = 100_000_000
"""After a refusal."""
JOY = "sensor_msgs/msg/Joy"


@dataclass
class Teleop:
    """Drives a robot by keys and joystick, through a guard.

    Attributes:
        operator: named in the latch file where a stop is reset.
        level: of `LEVELS`, the share of each axis's velocity limit.
        quitting: whether the operator wants to end; the robot comes to rest first.
        prefix: of the topics on which a policy node listens to an operator's device; empty: the robot's own.
    """

    link: GuardLink
    operator: str
    joy_map: JoyMap = field(default_factory=JoyMap)
    level: int = LEVEL
    quitting: bool = False
    prefix: str = ""

    def __post_init__(self) -> None:
        layout = self.link.layout
        self.guard, self.groups = self.link.guard, groups_of(layout)
        self.group, self._joint = 0, 0
        size = len(layout.axes)
        self._is_velocity = np.array([axis.is_velocity for axis in layout.axes])
        self._limits = np.array([axis.velocity if np.isfinite(axis.velocity) else 0.0 for axis in layout.axes])
        self._direction, self._until_ns = np.zeros(size), np.zeros(size, dtype=np.int64)
        self._stick, self._joy_until_ns, self._buttons = np.zeros(size), 0, frozenset[int]()
        self._opening: FloatArray = np.full(size, np.nan)
        self._asked: FloatArray = np.zeros(size)
        self._changed, self._pulse_until_ns, self._retry_ns = False, 0, 0
        self._first_step = self.guard.axes.lengths(self.guard.config.first_move.of) / 2 / (INTERVAL_NS / 1e9)
        self._grippers = {part.stream.name: part for part in layout.parts if part.form == "normalised"}
        self._gripper_topics = {topic for name in self._grippers for topic in self.link.topics_of(name)}
        self._silent, self._holding = self._gripper_topics, False

    @classmethod
    def of(
        cls,
        embodiment: Embodiment,
        operator: str,
        config: GuardConfig | None = None,
        streams: Sequence[str] | None = None,
        prefix: str = "",
    ) -> Self:
        """Return a teleoperation with a guard of its own, which never makes up for lost time: a key means a speed.

        Raises:
            InputError: the embodiment cannot be driven, or the prefix is none of topics.
        """
        config = (config or GuardConfig()).model_copy(update={"catch_up": 0.0})
        config = device_config(config, prefix) if prefix else config
        return cls(GuardLink.of(embodiment, config, streams=streams), operator, prefix=prefix)

    @property
    def heard(self) -> Mapping[str, str]:
        """Topics to subscribe to -> message type."""
        return self.link.heard

    @property
    def told(self) -> Mapping[str, str]:
        """Topics to publish on -> message type."""
        return {self.prefix + topic: kind for topic, kind in self.link.told.items()}

    def hear(self, topic: str, cdr: bytes, now_ns: int, wall_ns: int) -> bool:
        """Take a message of the robot's; return whether it tells the guard anything new."""
        return self.link.hear(topic, cdr, now_ns, wall_ns)

    @property
    def speed(self) -> float:
        """The share of each axis's velocity limit."""
        return LEVELS[self.level]

    @property
    def chosen(self) -> str:
        """What the keys move now."""
        group = self.groups[self.group]
        if not group.joints:
            return group.name
        return f"{group.name}: {self.link.layout.axes[group.joints[self._joint]].name}"

    def key(self, key: str, now_ns: int) -> str:
        """Do what a key means; return what there is to say to the operator, or an empty string."""
        word = WORDS.get(key)
        if word is not None:
            return self.obey(word, now_ns)
        if (found := self._moved_by(key)) is not None:
            axis, direction = found
            self._direction[axis], self._until_ns[axis] = direction, now_ns + HOLD_NS
        return ""

    def _moved_by(self, key: str) -> tuple[int, int] | None:
        group = self.groups[self.group]
        if not group.joints:
            return group.keys.get(key)
        if key not in PAIRS["x"]:
            return None
        return group.joints[self._joint], 1 if key == PAIRS["x"][0] else -1

    def obey(self, word: Word, now_ns: int) -> str:
        """Do what a control means; return what there is to say."""
        if word in (Word.FASTER, Word.SLOWER):
            self.level = min(max(self.level + (1 if word is Word.FASTER else -1), 0), len(LEVELS) - 1)
            return f"speed {100 * self.speed:g} %"
        if word in (Word.GROUP, Word.NEXT, Word.PREVIOUS):
            return self._choose(word)
        if word in (Word.CLOSE, Word.OPEN):
            return self._grip(-1.0 if word is Word.CLOSE else 1.0, now_ns)
        if word is Word.RESET:
            return self._reset(now_ns)
        self._let_go()
        if word is Word.STOP:
            return self._stop(now_ns)
        if word is Word.QUIT:
            self.end()
        return ""

    def _stop(self, now_ns: int) -> str:
        """Stop, latched; through a policy node hold instead, since silence would let the policy go on."""
        if self.prefix:
            self._holding = True
            return "holding; R lets the policy go on"
        self.guard.stop(now_ns, f"{self.operator} asked for it")
        return "stopped; R resets"

    def _reset(self, now_ns: int) -> str:
        if self._holding:
            self._holding = False
            return "the policy goes on"
        answer = self.guard.reset(now_ns, self.operator)
        return "the stop is reset" if answer else answer.text

    def _choose(self, word: Word) -> str:
        self._let_go()
        if word is Word.GROUP:
            self.group, self._joint = (self.group + 1) % len(self.groups), 0
        elif joints := self.groups[self.group].joints:
            self._joint = (self._joint + (1 if word is Word.NEXT else -1)) % len(joints)
        return self.chosen

    def _grip(self, opening: float, now_ns: int) -> str:
        if not self._grippers:
            return "there is no gripper command; choose its joint instead"
        for part in self._grippers.values():
            self._opening[part.place] = opening
        self._silent, self._changed, self._pulse_until_ns = set(), True, now_ns + PULSE_NS
        return "opening" if opening > 0 else "closing"

    def end(self) -> str:
        """Let the robot come to rest and end; return what there is to say."""
        self._let_go()
        self.quitting, self._holding = True, False
        return "stopping"

    def _let_go(self) -> None:
        self._until_ns[:], self._joy_until_ns, self._pulse_until_ns = 0, 0, 0

    def joy(self, cdr: bytes, now_ns: int) -> str:
        """Take a joystick's message; return what there is to say.

        Raises:
            DamageError: it is none.
        """
        message, joy_map = messages.decode(cdr, JOY), self.joy_map
        held = frozenset(button for button in range(len(message.buttons)) if message.buttons[button])
        pressed, self._buttons = held - self._buttons, held
        said = [self.obey(word, now_ns) for button, word in self._joy_words() if button in pressed]
        self._stick[:] = 0.0
        if joy_map.deadman in held and joy_map.stop not in held:
            keys = self.groups[self.group].keys
            for coordinate, deflection in joy_map.deflections(message.axes).items():
                if (found := keys.get(PAIRS[coordinate][0])) is not None:
                    self._stick[found[0]] = deflection
            self._joy_until_ns = now_ns + JOY_NS
        else:
            self._joy_until_ns = 0
        return " ".join(filter(None, said))

    def _joy_words(self) -> list[tuple[int, Word]]:
        joy = self.joy_map
        return [(joy.close, Word.CLOSE), (joy.open, Word.OPEN), (joy.stop, Word.STOP), (joy.next_group, Word.GROUP)]

    def tick(self, now_ns: int, wall_ns: int) -> tuple[Command, list[Outgoing]]:
        """Make one step of the control loop; return the command and the messages to publish."""
        self.guard.client(now_ns)
        wanted = self._wanted(now_ns)
        if wanted.any() or now_ns < self._pulse_until_ns or self._holding:
            self.guard.enable(now_ns)
            if self._changed or not self.guard.engaged or (wanted != self._asked).any():
                self._turn_to(now_ns, wanted)
            elif wanted.any() and self.guard.queued_s < QUEUED_S:
                self._go_on(now_ns, wanted)
        elif self._asked.any():
            self._asked = np.zeros_like(self._asked)
            self.guard.drop()
            self.guard.release()
        if self.prefix:
            self.guard.override(now_ns, 100 * leash(self.guard))
        led = self.guard.engaged
        command, outgoing = self.link.step(now_ns, wall_ns)
        told = [replace(m, topic=self.prefix + m.topic) for m in outgoing if m.topic not in self._silent]
        if self.prefix and led and not self.guard.engaged:
            self._opening[:], self._silent = np.nan, self._gripper_topics
        return command, told

    def _wanted(self, now_ns: int) -> FloatArray:
        """Return the velocity (D,) that keys and joystick ask for."""
        direction = np.where(self._until_ns > now_ns, self._direction, 0.0)
        if self._joy_until_ns > now_ns:
            direction = np.where(direction == 0, self._stick, direction)
        return np.asarray(direction * self._limits * self.speed)

    def _turn_to(self, now_ns: int, velocity: FloatArray) -> None:
        """Lead the path on with other velocities (D,), from where it is promised; axes that are not moved stay there."""
        guard = self.guard
        if now_ns < self._retry_ns:
            return
        here = guard.promised if guard.engaged else np.where(np.isnan(guard.measured), guard.position, guard.measured)
        if not guard.engaged:
            velocity = velocity * min(1.0, float((self._first_step / np.maximum(np.abs(velocity), 1e-9)).min()))
        guard.accept(self.link.layout.claim())
        here = np.where(np.isnan(self._opening), np.nan_to_num(here), self._opening)
        if self._submit(now_ns, here, velocity, replace=True):
            self._asked, self._changed = velocity, False
        else:
            self._retry_ns = now_ns + RETRY_NS

    def _go_on(self, now_ns: int, velocity: FloatArray) -> None:
        """Make the path longer, as it goes."""
        self._submit(now_ns, self.guard.goal, velocity, replace=False)

    def _submit(self, now_ns: int, start: FloatArray, velocity: FloatArray, *, replace: bool) -> bool:
        seconds = np.arange(1, AHEAD + 1)[:, None] * (INTERVAL_NS / 1e9)
        targets = np.where(self._is_velocity, velocity, start + velocity * seconds)
        targets = np.clip(targets, *self.guard.target_range)
        return bool(self.guard.submit(now_ns, targets, interval_ns=INTERVAL_NS, replace=replace))

    def trouble(self) -> str:
        """Return what the guard refuses for the time being, or an empty string."""
        if self.link.refused:
            return self.link.refused
        return f"a stop is latched ({self.guard.latch.cause}); R resets it" if self.guard.latch.latched else ""


def operator_name(name: str) -> str:
    """Return an operator's name, the login name if none is given.

    Raises:
        InputError: there is neither.
    """
    if name.strip():
        return name.strip()
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise InputError("Expected --operator NAME: nobody is logged in here who could be named.") from error
