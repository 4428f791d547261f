"""LeRobot's features as an embodiment's streams, and frames as the messages that carry them into a journal.

LeRobot has no roles but names: `observation.*` is seen, `action*` is done, everything else is beside. It has no units, frames
or joints either; an embodiment file adds them. Numbers travel as ROS 2 multi-arrays, which keep every bit; whole numbers
beside, which may need all their 64, and texts become ragged rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lehrling.datasets.embodiment import Binding, Camera, Contract, Embodiment, Source, Stream
from lehrling.datasets.errors import ContractError, InputError
from lehrling.datasets.lerobot_read import picture_size
from lehrling.datasets.message_types import standard
from lehrling.datasets.messages import COMPRESSED_IMAGE, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lehrling.datasets.lerobot_format import Feature

NAME_MAX = 60
EXACT = 2**53
"""Whole numbers up to this are exact in a float64, as which a message's numbers are read."""
PREFIXES = ("observation.images.", "observation.image.", "observation.")


@dataclass(frozen=True)
class Carrier:
    """How one feature travels: a stream, a topic, a message type.

    Attributes:
        dtype: of the stream; `array` is that of the message's data.
    """

    feature: Feature
    stream: str
    role: Literal["observation", "action", "auxiliary"]
    msgtype: str
    array: str = ""
    dtype: Literal["float64", "float32", "int64", "uint8"] = "float64"
    ragged: bool = False

    @property
    def topic(self) -> str:
        """The topic, which no robot has."""
        return f"/imported/{self.stream}" + ("/compressed" if self.feature.camera else "")

    @cached_property
    def described(self) -> Stream:
        """The stream as the contract has it."""
        if self.ragged:
            return Stream(name=self.stream, kind="ragged", dtype="uint8", role=self.role)
        names = element_names(self.feature)
        return Stream(
            name=self.stream, kind="scalar", shape=self.feature.shape, dtype=self.dtype, names=names, role=self.role
        )

    def refusal(self, values: NDArray[Any] | Sequence[str]) -> str:
        """Return why a column (N, …) cannot be taken, empty if it can."""
        if self.ragged:
            return ""
        numbers = np.asarray(values)
        if not np.isfinite(numbers).all():
            row = int(np.flatnonzero(~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1))[0])
            return f"{self.feature.key} is no finite number in frame {row}"
        if self.dtype == "int64" and len(numbers) and int(np.abs(numbers.astype(np.float64)).max()) > EXACT:
            return f"{self.feature.key} has whole numbers beyond 2^53, which a numeric stream does not hold exactly"
        return ""

    def message(self, value: object) -> bytes:
        """Return a row's message as CDR bytes: numbers of the feature's shape, or a text."""
        make = standard().make
        if self.feature.dtype == "string":
            return encode(make(self.msgtype)(data=str(value)))
        layout = make("std_msgs/msg/MultiArrayLayout")(dim=[], data_offset=0)
        data = np.ascontiguousarray(value, self.array).reshape(-1)
        return encode(make(self.msgtype)(layout=layout, data=data))


def element_names(feature: Feature) -> tuple[str, ...]:
    """Return a vector's names, where the dataset gives one per element, in a list or under one key as older ones do."""
    found = feature.names
    if isinstance(found, dict) and len(found) == 1:
        found = next(iter(found.values()))
    if not isinstance(found, list) or len(feature.shape) != 1 or len(found) != feature.shape[0]:
        return ()
    names = tuple(str(name)[:200] for name in found)
    return names if len(set(names)) == len(names) else ()


def carriers(features: Sequence[Feature]) -> tuple[Carrier, ...]:
    """Return how each feature travels, under stream names of their own."""
    taken: set[str] = set()
    return tuple(_carrier(feature, _stream_name(feature.key, taken)) for feature in features)


def _carrier(feature: Feature, stream: str) -> Carrier:
    role: Literal["observation", "action", "auxiliary"] = "auxiliary"
    if feature.camera or feature.key.startswith("observation"):
        role = "observation"
    elif feature.key.startswith("action"):
        role = "action"
    if feature.camera:
        return Carrier(feature, stream, role, COMPRESSED_IMAGE, dtype="uint8")
    if feature.dtype == "string":
        return Carrier(feature, stream, "auxiliary", "std_msgs/msg/String", ragged=True)
    if feature.dtype in ("float16", "float32"):
        return Carrier(feature, stream, role, "std_msgs/msg/Float32MultiArray", "float32", "float32")
    if feature.dtype == "float64":
        return Carrier(feature, stream, role, "std_msgs/msg/Float64MultiArray", "float64", "float64")
    if feature.dtype in ("bool", "uint8"):
        return Carrier(feature, stream, role, "std_msgs/msg/UInt8MultiArray", "uint8", "uint8")
    return Carrier(feature, stream, role, "std_msgs/msg/Int64MultiArray", "int64", "int64", ragged=role == "auxiliary")


def _stream_name(key: str, taken: set[str]) -> str:
    """Return a name that an embodiment can have: `observation.images.top` is `top`."""
    short = next((key.removeprefix(prefix) for prefix in PREFIXES if key.startswith(prefix)), key)
    name = re.sub(r"[^a-z0-9_]", "_", short.lower())[:NAME_MAX] or "feature"
    name = name if name[0].isalpha() else f"f_{name}"[:NAME_MAX]
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique)
    return unique


def derived_embodiment(carried: Sequence[Carrier], robot_type: str | None, fps: float) -> Embodiment:
    """Return the embodiment that the features alone give: names, shapes, types, roles and the rate."""
    name = re.sub(r"[^a-z0-9_]", "_", (robot_type or "lerobot").lower())[:NAME_MAX]
    sizes = {c.stream: picture_size(c.feature) for c in carried if c.feature.camera}
    contract = Contract(
        joints=(),
        cameras=tuple(Camera(name=stream, height=size[0], width=size[1]) for stream, size in sizes.items()),
        streams=tuple(c.described for c in carried if not c.feature.camera),
    )
    sources = {c.stream: (Source(topic=c.topic, type=c.msgtype, field="data", rate_hz=fps),) for c in carried}
    return Embodiment(
        name=name if name and name[0].isalpha() else f"r_{name}"[:NAME_MAX],
        description="Derived from what a dataset of another tool names; it says no units, frames or joints.",
        contract=contract,
        binding=Binding(sources=sources),
    )


def check_embodiment(given: Embodiment, derived: Embodiment) -> None:
    """Refuse an embodiment that the dataset's features do not fit; units, frames, kinds, joints and limits are its own.

    Raises:
        ContractError: a stream is missing, or of another shape, type, order or role, or comes from another topic.
    """
    known = {stream.name: stream for stream in given.contract.all_streams}
    for stream in derived.contract.all_streams:
        mine = known.pop(stream.name, None)
        if mine is None:
            raise ContractError(
                f"The dataset's {stream.name!r} {stream.shape} is no stream of the embodiment {given.name!r}."
            )
        for word in ("shape", "dtype", "role"):
            if getattr(mine, word) != getattr(stream, word):
                raise ContractError(
                    f"Stream {stream.name!r} has the {word} {getattr(mine, word)} in the embodiment {given.name!r}, "
                    f"{getattr(stream, word)} in the dataset."
                )
        if (mine.kind == "ragged") != (stream.kind == "ragged"):
            raise ContractError(
                f"Stream {stream.name!r} is {mine.kind} in the embodiment, {stream.kind} in the dataset."
            )
        _check_source(given, derived, stream.name)
    if missing := [stream for stream in known.values() if stream.role != "auxiliary"]:
        raise ContractError(
            f"The embodiment {given.name!r} has the stream {missing[0].name!r}, which the dataset lacks."
        )


def _check_source(given: Embodiment, derived: Embodiment, name: str) -> None:
    ours, theirs = derived.binding.sources[name][0], given.binding.sources[name]
    if len(theirs) != 1 or (theirs[0].topic, theirs[0].type, theirs[0].field) != (ours.topic, ours.type, ours.field):
        raise ContractError(
            f"Expected stream {name!r} of the embodiment from {ours.topic} ({ours.type}, field {ours.field}), got "
            f"{theirs[0].topic} ({theirs[0].type}, field {theirs[0].field})."
        )


def stream_of(carried: Sequence[Carrier]) -> dict[str, str]:
    """Return the stream of each feature key.

    Raises:
        InputError: two features have one stream.
    """
    found = {carrier.feature.key: carrier.stream for carrier in carried}
    if len(set(found.values())) != len(found):
        raise InputError(f"Expected a stream per feature, got {found}.")
    return found
