"""Embodiments: what a robot's data means (contract) and where this station gets it from (binding)."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lehrling.datasets.documents import parse_yaml, read_yaml
from lehrling.datasets.errors import InputError

FILE_BYTES_MAX = 1 << 20
Role = Literal["observation", "action", "auxiliary"]
Kind = Literal[
    "joint_position",
    "joint_velocity",
    "joint_effort",
    "pose",
    "twist",
    "wrench",
    "imu",
    "scalar",
    "tactile",
    "colour_image",
    "depth_image",
    "ragged",
    "raw",
]
IMAGE_KINDS = ("colour_image", "depth_image")
JOINT_KINDS = ("joint_position", "joint_velocity", "joint_effort")
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Count = Annotated[int, Field(ge=1, le=100_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def canonical_hash(data: object) -> str:
    """Return the sha256 of canonical JSON: sorted keys, no spaces."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Joint(_Strict):
    """A joint and its unit of position."""

    name: Name
    unit: Literal["rad", "m"] = "rad"


class Stream(_Strict):
    """A stream of equal rows, or of images, ragged rows or raw messages.

    Attributes:
        shape: of one row; () for ragged and raw.
        names: of the row's elements, where it is a vector.
    """

    name: Name
    kind: Kind
    shape: tuple[Count, ...] = ()
    dtype: Literal["float64", "float32", "int64", "uint8", "uint16"] = "float64"
    names: tuple[str, ...] = ()
    unit: str = ""
    frame: str = ""
    role: Role = "observation"

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if self.names and (len(self.shape) != 1 or len(self.names) != self.shape[0]):
            raise ValueError(f"stream {self.name!r}: {len(self.names)} names do not fit the shape {self.shape}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"stream {self.name!r}: a name is there twice")
        return self


class Camera(_Strict):
    """A camera; it is an image stream of the same name.

    Attributes:
        encoding: `rgb8` for colour, `16UC1` for depth in millimetres.
    """

    name: Name
    height: Annotated[int, Field(ge=8, le=8192)]
    width: Annotated[int, Field(ge=8, le=8192)]
    encoding: Literal["rgb8", "16UC1"] = "rgb8"


class Contract(_Strict):
    """What the data means; two datasets go together exactly where their contracts' hashes are equal."""

    joints: tuple[Joint, ...]
    groups: dict[Name, tuple[Name, ...]] = {}
    cameras: tuple[Camera, ...] = ()
    streams: tuple[Stream, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [s.name for s in self.streams] + [c.name for c in self.cameras]
        if len(set(names)) != len(names):
            raise ValueError("a stream or camera is there twice")
        known = {joint.name for joint in self.joints}
        for group, members in self.groups.items():
            if unknown := set(members) - known:
                raise ValueError(f"group {group!r} names unknown joints {sorted(unknown)}")
        return self

    @property
    def joint_names(self) -> frozenset[str]:
        """Names of all joints."""
        return frozenset(joint.name for joint in self.joints)

    @property
    def all_streams(self) -> tuple[Stream, ...]:
        """Numeric streams, then one image stream per camera."""
        images = tuple(
            Stream(
                name=c.name,
                kind="colour_image" if c.encoding == "rgb8" else "depth_image",
                shape=(c.height, c.width, 3) if c.encoding == "rgb8" else (c.height, c.width),
                dtype="uint8" if c.encoding == "rgb8" else "uint16",
                unit="" if c.encoding == "rgb8" else "mm",
                frame=c.name,
            )
            for c in self.cameras
        )
        return self.streams + images

    def stream(self, name: str) -> Stream:
        """Return a stream by name.

        Raises:
            InputError: there is none of that name.
        """
        for stream in self.all_streams:
            if stream.name == name:
                return stream
        known = ", ".join(s.name for s in self.all_streams)
        raise InputError(f"There is no stream {name!r} in the contract; it has {known}.")

    @property
    def hash(self) -> str:
        """sha256 over the canonical contract."""
        return canonical_hash(self.model_dump(mode="json"))

    def difference(self, other: Contract) -> str:
        """Return a sentence that says where `other` first differs, or an empty string."""
        mine, its = self.model_dump(mode="json"), other.model_dump(mode="json")
        for key in mine:
            if mine[key] != its[key]:
                return f"The contracts differ in {_first_difference(key, mine[key], its[key])}."
        return ""


def _first_difference(path: str, mine: object, its: object) -> str:
    if isinstance(mine, dict) and isinstance(its, dict):
        for key in sorted(set(mine) | set(its)):
            if mine.get(key) != its.get(key):
                return _first_difference(f"{path}.{key}", mine.get(key), its.get(key))
    if isinstance(mine, list) and isinstance(its, list) and all(isinstance(x, dict) for x in [*mine, *its]):
        ours, theirs = {x.get("name"): x for x in mine}, {x.get("name"): x for x in its}
        for name in [*ours, *theirs]:
            if ours.get(name) != theirs.get(name):
                return _first_difference(f"{path} {name}", ours.get(name), theirs.get(name))
    return f"{path}: {_short(mine)} here, {_short(its)} there"


def _short(value: object) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) < 120 else text[:117] + "…"


class Source(_Strict):
    """Where a stream's rows come from: a topic, a message type and a field path.

    Attributes:
        latency_ms: known time from stamp to receipt.
    """

    topic: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_/]{1,250}$")]
    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*/msg/[A-Za-z0-9]+$")]
    field: str = ""
    rate_hz: Annotated[float, Field(gt=0, le=20_000)] | None = None
    latency_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    qos: dict[str, str | int] = {}


class Limits(_Strict):
    """Non-safety-rated software limits per joint, and boxes for the TCP [m]."""

    position: dict[Name, tuple[float, float]] = {}
    velocity: dict[Name, float] = {}
    acceleration: dict[Name, float] = {}
    jerk: dict[Name, float] = {}
    effort: dict[Name, float] = {}
    workspace: dict[Name, tuple[tuple[float, float, float], tuple[float, float, float]]] = {}


class Binding(_Strict):
    """This station's sources and facts; provenance, stored whole with every episode.

    A stream may have several sources, each feeding some of its elements.
    """

    sources: dict[Name, tuple[Source, ...]]
    namespace: str = ""
    calibration: dict[str, list[float]] = {}
    limits: Limits = Limits()
    serials: dict[str, str] = {}
    robot_description: str = ""
    journal_images: Literal["raw", "jpeg"] = "jpeg"

    @property
    def hash(self) -> str:
        """sha256 over the canonical binding."""
        return canonical_hash(self.model_dump(mode="json"))

    @property
    def topics(self) -> dict[str, str]:
        """Topic -> message type, over all sources."""
        return {source.topic: source.type for sources in self.sources.values() for source in sources}


class Embodiment(_Strict):
    """A robot: its name, contract and binding."""

    name: Name
    description: str = ""
    contract: Contract
    binding: Binding

    @model_validator(mode="after")
    def _bound(self) -> Self:
        wanted = {stream.name for stream in self.contract.all_streams}
        if missing := wanted - set(self.binding.sources):
            raise ValueError(f"streams without a source in the binding: {', '.join(sorted(missing))}")
        if extra := set(self.binding.sources) - wanted:
            raise ValueError(f"sources of streams that the contract lacks: {', '.join(sorted(extra))}")
        return self

    @property
    def contract_hash(self) -> str:
        """sha256 of the contract."""
        return self.contract.hash

    @property
    def binding_hash(self) -> str:
        """sha256 of the binding."""
        return self.binding.hash


def shipped_embodiments() -> list[str]:
    """Return the names of the embodiments that come with the package."""
    folder = files("lehrling.datasets") / "embodiments"
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def load_embodiment(name_or_path: str | Path) -> Embodiment:
    """Load a shipped embodiment by name, or one from a YAML file.

    Raises:
        InputError: there is none, or the file breaks the schema; the message names file and key.
    """
    text = str(name_or_path)
    if text in shipped_embodiments():
        content = (files("lehrling.datasets") / "embodiments" / f"{text}.yaml").read_text(encoding="utf-8")
        return parse_embodiment(parse_yaml(content, text), text)
    path = Path(name_or_path)
    if not path.is_file():
        choices = ", ".join(shipped_embodiments())
        raise InputError(f"Expected an embodiment's name ({choices}) or a YAML file, got {text!r}.")
    return parse_embodiment(read_yaml(path, "embodiment file", bytes_max=FILE_BYTES_MAX), str(path))


def parse_embodiment(data: Any, where: str) -> Embodiment:
    """Check an embodiment given as a mapping.

    Raises:
        InputError: naming the key, what came and where.
    """
    try:
        return Embodiment.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the document"
        problem = "is no key of an embodiment" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{where}: {key}: {problem}.") from error
