"""What a cell is told in its YAML: recipes, handshake, robot, OPC UA, MQTT, S7 and the audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator, model_validator

from lehrling.datasets.documents import read_model
from lehrling.datasets.errors import InputError
from lehrling.deploy.handshake_image import HandshakeOptions, Mode, RecipeLimits

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")]
Port = Annotated[int, Field(ge=0, le=65535)]
ModeName = Literal["OTHER", "MANUAL_REDUCED_SPEED", "MANUAL_HIGH_SPEED", "AUTOMATIC", "AUTOMATIC_EXTERNAL"]
AXES_MAX = 64


class Strict(BaseModel):
    """A part of the file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(Strict):
    """What a PLC's recipe number stands for.

    Attributes:
        instruction: what the policy is told.
        adapter: of the policy server; the recipe's name where none is given.
        cycle_max_s: a cycle that takes longer is stopped.
        speed_max_pct: the speed override is limited to it.
    """

    name: Name
    instruction: Text
    adapter: Name | None = None
    cycle_max_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    speed_max_pct: Annotated[float, Field(gt=0, le=100)] = 100.0


class HandshakeConfig(Strict):
    """How strict the handshake is; times in ms.

    Attributes:
        commands_from: the one side that may command; the other shows the same image, read-only.
        modes: operational modes of the robot's controller in which the robot may move.
    """

    commands_from: Literal["opcua", "s7"] = "opcua"
    cycle_ms: Annotated[int, Field(ge=5, le=200)] = 20
    heartbeat_timeout_ms: Annotated[int, Field(ge=50, le=10_000)] = 500
    debounce_ms: Annotated[int, Field(ge=0, le=2_000)] = 50
    link_beats: Annotated[int, Field(ge=1, le=100)] = 3
    answer_ms: Annotated[int, Field(ge=500, le=60_000)] = 5_000
    modes: frozenset[ModeName] = frozenset({"AUTOMATIC", "AUTOMATIC_EXTERNAL"})

    @model_validator(mode="after")
    def _timeout_is_several_cycles(self) -> Self:
        if self.heartbeat_timeout_ms < 3 * self.cycle_ms:
            raise ValueError(
                f"expected heartbeat_timeout_ms of at least 3 x cycle_ms ({3 * self.cycle_ms}), "
                f"got {self.heartbeat_timeout_ms}"
            )
        return self


class AxisConfig(Strict):
    """An axis as OPC UA shows it; `name` is the joint's."""

    name: Name
    unit: Literal["rad", "m"] = "rad"


class RobotConfig(Strict):
    """The nameplate that OPC UA shows, and the axes."""

    name: Name = "robot"
    manufacturer: Text = "unknown"
    model: Text = "unknown"
    product_code: str = ""
    serial_number: str = ""
    category: Literal[
        "OTHER", "ARTICULATED_ROBOT", "SCARA_ROBOT", "CARTESIAN_ROBOT", "SPHERICAL_ROBOT", "PARALLEL_ROBOT"
    ] = "ARTICULATED_ROBOT"
    payload_kg: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    axes: Annotated[tuple[AxisConfig, ...], Field(max_length=AXES_MAX)] = ()

    @field_validator("axes")
    @classmethod
    def _names_differ(cls, axes: tuple[AxisConfig, ...]) -> tuple[AxisConfig, ...]:
        names = [axis.name for axis in axes]
        if len(set(names)) != len(names):
            raise ValueError("expected every axis once")
        return axes


class OpcUaConfig(Strict):
    """The OPC UA server. Always Basic256Sha256, SignAndEncrypt, user and password.

    Attributes:
        port: 0 takes a free one.
        certificate, key: DER and PEM; made on the first start where neither exists.
        hosts: names and addresses under which clients reach the server, for its certificate.
        users: file of users, see `lehrling cell-user`.
        trusted: folder of client certificates (DER or PEM); without it any client may try a password.
        nodesets: the OPC Foundation's NodeSet files of DI and Robotics, in this order, to show all of their types; without
            them the cell builds those that it uses.
    """

    host: Host = "127.0.0.1"
    port: Port = 4840
    certificate: Path = Path("pki/cell.der")
    key: Path = Path("pki/cell.pem")
    hosts: tuple[Host, ...] = ("localhost", "127.0.0.1")
    users: Path = Path("users.yaml")
    trusted: Path | None = None
    nodesets: tuple[Path, Path] | None = None
    sessions_max: Annotated[int, Field(ge=1, le=200)] = 16


class MqttConfig(Strict):
    """Telemetry to a broker; publish only.

    Attributes:
        topic: what every topic begins with.
        password_file: first line is the password; beyond this machine only with `tls_ca`.
        tls_ca: certificate authority of the broker (PEM); TLS is used when it is given.
    """

    host: Host = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    topic: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}(/[A-Za-z0-9_.-]{1,64}){0,7}$")] = (
        "lehrling/cell"
    )
    client_id: Name = "lehrling-cell"
    username: str | None = None
    password_file: Path | None = None
    tls_ca: Path | None = None
    period_ms: Annotated[int, Field(ge=50, le=60_000)] = 1_000


class S7Config(Strict):
    """A data block of an S7 PLC that holds the handshake's image, read and written by PUT/GET.

    Attributes:
        unauthenticated: has to be true: PUT/GET knows no user and no encryption.
    """

    host: Host
    port: Annotated[int, Field(ge=1, le=65535)] = 102
    rack: Annotated[int, Field(ge=0, le=7)] = 0
    slot: Annotated[int, Field(ge=0, le=31)] = 1
    db: Annotated[int, Field(ge=1, le=65535)]
    unauthenticated: Literal[True]


class CellConfig(Strict):
    """A cell: one robot, one PLC.

    Attributes:
        recipes: by the number that the PLC gives, 1 to 65535.
        audit: file of the audit; without it nothing starts.
        runtime: what the robot's runtime is told; read there.
    """

    name: Name = "cell"
    recipes: Annotated[dict[Annotated[int, Field(ge=1, le=65535)], Recipe], Field(min_length=1, max_length=1000)]
    handshake: HandshakeConfig = HandshakeConfig()
    robot: RobotConfig = RobotConfig()
    opcua: OpcUaConfig = OpcUaConfig()
    mqtt: MqttConfig | None = None
    s7: S7Config | None = None
    audit: Path = Path("audit.jsonl")
    runtime: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _somebody_commands(self) -> Self:
        if self.handshake.commands_from == "s7" and self.s7 is None:
            raise ValueError("handshake.commands_from is s7, which needs the part s7")
        return self

    def handshake_options(self) -> HandshakeOptions:
        """Return what the handshake is told."""
        told = self.handshake
        limits = {
            number: RecipeLimits(int(recipe.cycle_max_s * 1e9), recipe.speed_max_pct / 100)
            for number, recipe in self.recipes.items()
        }
        return HandshakeOptions(
            recipes=limits,
            modes=frozenset(Mode[name] for name in told.modes),
            heartbeat_timeout_ns=told.heartbeat_timeout_ms * 1_000_000,
            link_beats=told.link_beats,
            debounce_ns=told.debounce_ms * 1_000_000,
            answer_ns=told.answer_ms * 1_000_000,
        )


def read_cell_config(path: Path) -> CellConfig:
    """Read a cell's YAML; paths in it are relative to its folder.

    Raises:
        InputError: it is missing, or a key or value is wrong; the message names it.
    """
    config = read_model(path, CellConfig, "a cell configuration")
    folder = path.parent
    opcua = config.opcua
    trusted = folder / opcua.trusted if opcua.trusted else None
    if trusted is not None and not trusted.is_dir():
        raise InputError(f"{path}: opcua.trusted: expected a folder of client certificates at {trusted}.")
    moved = opcua.model_copy(
        update={
            "certificate": folder / opcua.certificate,
            "key": folder / opcua.key,
            "users": folder / opcua.users,
            "trusted": trusted,
            "nodesets": tuple(folder / each for each in opcua.nodesets) if opcua.nodesets else None,
        }
    )
    return config.model_copy(
        update={"opcua": moved, "audit": folder / config.audit, "mqtt": _mqtt_in(config.mqtt, path)}
    )


def _mqtt_in(mqtt: MqttConfig | None, path: Path) -> MqttConfig | None:
    if mqtt is None:
        return None
    local = mqtt.host in ("localhost", "127.0.0.1", "::1")
    if mqtt.password_file is not None and mqtt.tls_ca is None and not local:
        raise InputError(f"{path}: mqtt: a password would travel in the clear to {mqtt.host}; give tls_ca as well.")
    files = {
        key: path.parent / value for key in ("password_file", "tls_ca") if (value := getattr(mqtt, key)) is not None
    }
    return mqtt.model_copy(update=files)
