"""Faults to order: what a recorder or a policy must survive, injected into a served robot's sensors."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import simplejpeg

from lehrling.datasets import messages
from lehrling.datasets.errors import InputError
from lehrling.sim.sensing import JPEG_QUALITY, Sensor

FORMS = {
    "camera_unplug": "camera_unplug:CAMERA:FROM:TO",
    "freeze": "freeze:CAMERA:FROM:TO",
    "wrong_size": "wrong_size:CAMERA:FROM:TO",
    "nan": "nan:SENSOR:FROM:TO",
    "drop": "drop:SENSOR:PROBABILITY[:FROM:TO]",
    "clock_jump": "clock_jump:SECONDS:AT",
}
CAMERA_FAULTS = ("camera_unplug", "freeze", "wrong_size")
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
JUMP_MAX_S, TIME_MAX_S = 1e6, 1e6
_EPISODE = re.compile(r"^(.*)@(\d{1,6})$")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        target: a camera's or sensor's name; empty for a clock jump.
        start_s, stop_s: simulation time since the episode's reset [s].
        amount: probability of a drop, or seconds of a clock jump.
        episode: the only episode, counted from 0, in which it strikes; None for every one.
    """

    kind: str
    target: str
    start_s: float
    stop_s: float
    amount: float = 0.0
    episode: int | None = None

    def active(self, now_ns: int, episode: int) -> bool:
        """Whether it strikes at this simulation time since the reset [ns], in this episode."""
        return self.episode in (None, episode) and self.start_s * 1e9 <= now_ns < self.stop_s * 1e9


def _refuse(text: str, reason: str, form: str) -> NoReturn:
    raise InputError(
        f"Fault {text!r}: {reason}; expected {form}, times in seconds since the reset, @N for episode N only."
    )


def _number(text: str, word: str, what: str, form: str, low: float, high: float) -> float:
    try:
        value = float(word)
    except ValueError:
        _refuse(text, f"{what} {word!r} is no number", form)
    if not low <= value <= high:
        _refuse(text, f"{what} {word} is not from {low:g} to {high:g}", form)
    return value


def parse_fault(text: str) -> Fault:
    """Read a fault as the command line gives it, such as `camera_unplug:front:2:5` or `drop:joint_states:0.1@3`.

    Raises:
        InputError: saying what is wrong and what the form is.
    """
    suffix = _EPISODE.match(text)
    body, episode = (suffix[1], int(suffix[2])) if suffix else (text, None)
    kind, *words = body.split(":")
    form = FORMS.get(kind, "")
    if not form:
        raise InputError(f"Fault {text!r}: there is no fault {kind!r}; expected one of {', '.join(FORMS.values())}.")
    counts = (2, 4) if kind == "drop" else (2,) if kind == "clock_jump" else (3,)
    if len(words) not in counts or not all(words):
        _refuse(text, "the parts do not fit", form)
    if kind == "clock_jump":
        jump = _number(text, words[0], "SECONDS", form, -JUMP_MAX_S, JUMP_MAX_S)
        return Fault(kind, "", _number(text, words[1], "AT", form, 0, TIME_MAX_S), np.inf, jump, episode)
    target, amount, times = words[0].removeprefix("/"), 0.0, words[1:]
    if kind == "drop":
        amount, times = _number(text, words[1], "PROBABILITY", form, 0, 1), words[2:] or ["0", str(TIME_MAX_S)]
    start, stop = (_number(text, t, w, form, 0, TIME_MAX_S) for t, w in zip(times, ("FROM", "TO"), strict=True))
    if start >= stop:
        _refuse(text, "FROM is not before TO", form)
    return Fault(kind, target, start, stop, amount, episode)


def restamped(cdr: bytes, stamp_ns: int) -> bytes:
    """Return a message that begins with a header, little-endian CDR, with another stamp."""
    return cdr[:4] + struct.pack("<iI", *divmod(stamp_ns, messages.NS)) + cdr[12:]


def half_size(cdr: bytes, msgtype: str) -> bytes:
    """Return an image message with every other row and column."""
    message = messages.decode(cdr, msgtype)
    stamp, frame = messages.stamp_of(message) or 0, message.header.frame_id
    if msgtype == IMAGES[1]:
        pixels = np.ascontiguousarray(simplejpeg.decode_jpeg(message.data.tobytes())[::2, ::2])
        return messages.compressed_image(
            simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorsubsampling="444"), stamp, frame
        )
    shape = (message.height, message.width, 3) if message.encoding == "rgb8" else (message.height, message.width)
    whole = message.data.view("uint8" if message.encoding == "rgb8" else "<u2").reshape(shape)
    return messages.image(whole[::2, ::2], message.encoding, stamp, frame)


def with_nan(cdr: bytes, msgtype: str) -> bytes:
    """Return a joint state or pose whose first number is no number."""
    message: Any = messages.decode(cdr, msgtype)
    if msgtype == "sensor_msgs/msg/JointState":
        message.position = message.position.copy()
        message.position[0] = np.nan
    else:
        message.pose.position.x = np.nan
    return messages.encode(message)


@dataclass
class Faults:
    """The faults of one served robot; without any, sensors are read as they are.

    Attributes:
        rng: draws the drops, apart from the sensors' noise.
    """

    faults: Sequence[Fault] = ()
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    episode: int = 0
    _last: dict[str, bytes] = field(default_factory=dict)

    def check(self, sensors: Sequence[Sensor]) -> None:
        """Refuse a fault of something that the robot does not have.

        Raises:
            InputError: naming the choices.
        """
        cameras = [s.name for s in sensors if s.type in IMAGES]
        others = [s.name for s in sensors if s.type not in IMAGES]
        for fault in self.faults:
            choices = cameras if fault.kind in CAMERA_FAULTS else others if fault.kind == "nan" else cameras + others
            if fault.target not in choices and fault.kind != "clock_jump":
                raise InputError(
                    f"Fault {fault.kind}: there is no {fault.target!r} that it could strike; choose one of {', '.join(choices)}."
                )

    def begin(self, episode: int) -> None:
        """Forget the last episode's pictures; a camera frozen from the beginning repeats its first."""
        self.episode = episode
        self._last.clear()

    def jump_ns(self, now_ns: int) -> int:
        """Return by how much the robot's clock is off [ns]."""
        return sum(
            int(f.amount * 1e9) for f in self.faults if f.kind == "clock_jump" and f.active(now_ns, self.episode)
        )

    def take(self, sensor: Sensor, now_ns: int, stamp_ns: int, rng: np.random.Generator) -> bytes | None:
        """Read a sensor with its faults; None where the message is lost."""
        active = [f for f in self.faults if f.target == sensor.name and f.active(now_ns, self.episode)]
        struck = {f.kind for f in active}
        if "camera_unplug" in struck or self._dropped(active):
            return None
        if "freeze" in struck and sensor.name in self._last:
            return restamped(self._last[sensor.name], stamp_ns)
        cdr = sensor.read(stamp_ns, rng)
        self._last[sensor.name] = cdr
        if "wrong_size" in struck:
            cdr = half_size(cdr, sensor.type)
        return with_nan(cdr, sensor.type) if "nan" in struck else cdr

    def _dropped(self, active: Sequence[Fault]) -> bool:
        """Whether a message is lost to one of the drops; overlapping ones draw in turn."""
        return any(self.rng.random() < f.amount for f in active if f.kind == "drop")
